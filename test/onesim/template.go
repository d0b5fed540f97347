package onesim

import (
	"encoding/xml"
	"slices"
	"sort"
	"strings"
)

// pair is one key of a vector attribute.
type pair struct{ key, value string }

// attribute is a single (NAME=value) or a vector (NAME=[K=v, ...]) attribute of a template.
type attribute struct {
	name   string
	value  string
	vector bool
	pairs  []pair // sorted by key, keys unique: oned keeps them in a map
}

// template is oned's multimap of attributes: sorted by name, equal names in the order they came.
type template struct{ attrs []attribute }

func (a *attribute) get(key string) string {
	for _, p := range a.pairs {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

func (a *attribute) has(key string) bool {
	return slices.ContainsFunc(a.pairs, func(p pair) bool { return p.key == key })
}

func (a *attribute) set(key, value string) {
	i := sort.Search(len(a.pairs), func(i int) bool { return a.pairs[i].key >= key })
	if i < len(a.pairs) && a.pairs[i].key == key {
		a.pairs[i].value = value
		return
	}
	a.pairs = slices.Insert(a.pairs, i, pair{key, value})
}

func (a *attribute) del(key string) {
	a.pairs = slices.DeleteFunc(a.pairs, func(p pair) bool { return p.key == key })
}

func (a *attribute) clone() attribute {
	out := *a
	out.pairs = slices.Clone(a.pairs)
	return out
}

func newVector(name string, kv ...string) attribute {
	a := attribute{name: name, vector: true}
	for i := 0; i+1 < len(kv); i += 2 {
		a.set(kv[i], kv[i+1])
	}
	return a
}

func (t *template) clone() *template {
	out := &template{attrs: make([]attribute, len(t.attrs))}
	for i := range t.attrs {
		out.attrs[i] = t.attrs[i].clone()
	}
	return out
}

// get is the value of the last single attribute of that name, or "".
func (t *template) get(name string) string {
	for _, v := range slices.Backward(t.attrs) {
		if v.name == name && !v.vector {
			return v.value
		}
	}
	return ""
}

func (t *template) has(name string) bool {
	return slices.ContainsFunc(t.attrs, func(a attribute) bool { return a.name == name })
}

// vectors are the vector attributes of that name, in order. The pointers are valid until the next change.
func (t *template) vectors(name string) []*attribute {
	var out []*attribute
	for i := range t.attrs {
		if t.attrs[i].name == name && t.attrs[i].vector {
			out = append(out, &t.attrs[i])
		}
	}
	return out
}

func (t *template) add(a attribute) {
	i := sort.Search(len(t.attrs), func(i int) bool { return t.attrs[i].name > a.name })
	t.attrs = slices.Insert(t.attrs, i, a)
}

func (t *template) set(name, value string) {
	t.del(name)
	t.add(attribute{name: name, value: value})
}

// setDefault sets a single attribute that is not there yet.
func (t *template) setDefault(name, value string) {
	if !t.has(name) {
		t.set(name, value)
	}
}

func (t *template) del(name string) {
	t.attrs = slices.DeleteFunc(t.attrs, func(a attribute) bool { return a.name == name })
}

// take removes the attributes of that name and returns them.
func (t *template) take(name string) []attribute {
	var out []attribute
	for i := range t.attrs {
		if t.attrs[i].name == name {
			out = append(out, t.attrs[i].clone())
		}
	}
	t.del(name)
	return out
}

// merge is oned's append: every name in other replaces all attributes of that name here.
func (t *template) merge(other *template) {
	for i := range other.attrs {
		t.del(other.attrs[i].name)
	}
	for i := range other.attrs {
		t.add(other.attrs[i].clone())
	}
}

func (t *template) writeXML(b *xmlOut, root string) {
	b.open(root)
	for i := range t.attrs {
		t.attrs[i].writeXML(b)
	}
	b.close(root)
}

func (a *attribute) writeXML(b *xmlOut) {
	if a.vector {
		b.vector(a.name, a.pairs)
		return
	}
	b.cdata(a.name, a.value)
}

// parseXMLTemplate reads the XML form: children with children are vectors.
func parseXMLTemplate(text string) (*template, error) {
	type node struct {
		XMLName  xml.Name
		Text     string `xml:",chardata"`
		Children []node `xml:",any"`
	}
	var root node
	if err := xml.Unmarshal([]byte(text), &root); err != nil {
		return nil, fail(CodeInternal, "Parse error: XML template could not be parsed")
	}
	t := &template{}
	for _, child := range root.Children {
		a := attribute{name: strings.ToUpper(child.XMLName.Local)}
		if len(child.Children) == 0 {
			a.value = child.Text
		} else {
			a.vector = true
			for _, leaf := range child.Children {
				a.set(strings.ToUpper(leaf.XMLName.Local), leaf.Text)
			}
		}
		t.add(a)
	}
	return t, nil
}
