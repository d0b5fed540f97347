package provider

import "sync"

const (
	// maxKnown bounds what an interner remembers: it then begins anew.
	maxKnown = 4096
	// maxInterned is the longest text, in bytes, that may be the same in many objects.
	maxInterned = 256
)

// interner keeps one copy of texts that stand in thousands of objects, such as
// the names of namespaces and pools: a decoder makes a new one for each. Safe
// for concurrent use.
type interner struct {
	mu    sync.Mutex // guards texts
	texts map[string]string
}

// known is that of all informers.
var known = &interner{}

// of returns an equal text, if possible one that is there already.
func (i *interner) of(s string) string {
	if s == "" || len(s) > maxInterned {
		return s
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if t, ok := i.texts[s]; ok {
		return t
	}
	if i.texts == nil || len(i.texts) >= maxKnown {
		i.texts = map[string]string{}
	}
	i.texts[s] = s
	return s
}

func (i *interner) ofAll(list []string) {
	for n := range list {
		list[n] = i.of(list[n])
	}
}

// ofMap changes the map in place; none is made of one that is empty.
func (i *interner) ofMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	for k, v := range m {
		m[i.of(k)] = i.of(v) // an assignment replaces an equal key too
	}
	return m
}
