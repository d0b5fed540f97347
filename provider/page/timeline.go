package page

import (
	"slices"
	"sync"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"github.com/onelb/onelb/api/v1alpha1"
)

// Kind is what happened to an address.
type Kind string

// The kinds.
const (
	Taken    Kind = "taken"    // a node took it that nobody had, or its own again
	Moved    Kind = "moved"    // from one node to another
	Lost     Kind = "lost"     // nobody holds it any more
	Conflict Kind = "conflict" // another host claims it
	Settled  Kind = "settled"  // nobody does any more
)

// Entry is something that happened to an address.
type Entry struct {
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"kind"`
	Address  string    `json:"address"`
	Services []string  `json:"services,omitempty"`
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	// Takeover counts those of the address.
	Takeover int64 `json:"takeover,omitempty"`
	// Detail is a message of whoever noticed it.
	Detail string `json:"detail,omitempty"`
}

// kept is how many entries are remembered.
const kept = 500

// Timeline remembers the last things that happened to addresses, from what is
// watched of VirtualIPs. Of the time before it began it knows since when each
// address is where it is. Safe for concurrent use.
type Timeline struct {
	mu      sync.Mutex // guards entries
	entries []Entry    // sorted, the oldest first
}

// NewTimeline makes one that is empty.
func NewTimeline() *Timeline { return &Timeline{} }

// Entries are the entries, the newest first.
func (t *Timeline) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := append([]Entry{}, t.entries...) // none is an empty list
	slices.Reverse(out)
	return out
}

// Handler is for an informer of VirtualIPs.
func (t *Timeline) Handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if v, ok := obj.(*v1alpha1.VirtualIP); ok {
				t.note(&v1alpha1.VirtualIP{}, v, time.Now())
			}
		},
		UpdateFunc: func(old, obj any) {
			was, ok := old.(*v1alpha1.VirtualIP)
			if v, is := obj.(*v1alpha1.VirtualIP); ok && is {
				t.note(was, v, time.Now())
			}
		},
	}
}

// note compares an address with what it was.
func (t *Timeline) note(was, is *v1alpha1.VirtualIP, now time.Time) {
	e := Entry{Address: is.Spec.Address}
	for _, s := range is.Spec.Services {
		e.Services = append(e.Services, s.Namespace+"/"+s.Name)
	}
	if h, ok := holding(was.Status.Holder, is.Status.Holder, now); ok {
		h.Address, h.Services = e.Address, e.Services
		t.add(h)
	}
	before := apimeta.IsStatusConditionTrue(was.Status.Conditions, v1alpha1.VirtualIPAddressConflict)
	c := apimeta.FindStatusCondition(is.Status.Conditions, v1alpha1.VirtualIPAddressConflict)
	if c == nil || before == (c.Status == "True") {
		return
	}
	e.Time, e.Kind, e.Detail = c.LastTransitionTime.Time, Conflict, c.Message
	if before {
		e.Kind, e.Detail = Settled, ""
	}
	t.add(e)
}

// holding says what has happened between two holders.
func holding(was, is *v1alpha1.Holder, now time.Time) (Entry, bool) {
	switch {
	case is == nil && was == nil, is != nil && was != nil && is.Name == was.Name && is.Epoch == was.Epoch:
		return Entry{}, false
	case is == nil:
		return Entry{Kind: Lost, Time: now, From: was.Name}, true
	}
	e := Entry{Kind: Taken, Time: is.Since.Time, To: is.Name, Takeover: is.Epoch}
	if was != nil && was.Name != is.Name {
		e.Kind, e.From = Moved, was.Name
	}
	return e, true
}

// add puts an entry in its place; the oldest gives way.
func (t *Timeline) add(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, _ := slices.BinarySearchFunc(t.entries, e, func(a, b Entry) int {
		if a.Time.After(b.Time) {
			return 1
		}
		return -1 // behind those of the same time
	})
	t.entries = slices.Insert(t.entries, at, e)
	if len(t.entries) > kept {
		t.entries = slices.Delete(t.entries, 0, 1)
	}
}
