package onesim

import (
	"strconv"
	"strings"
)

// xmlOut builds one of oned's documents. Plain text is escaped; CDATA is what oned uses for attributes.
type xmlOut struct{ strings.Builder }

func (b *xmlOut) open(name string)  { b.WriteByte('<'); b.WriteString(name); b.WriteByte('>') }
func (b *xmlOut) close(name string) { b.WriteString("</"); b.WriteString(name); b.WriteByte('>') }
func (b *xmlOut) empty(name string) { b.WriteByte('<'); b.WriteString(name); b.WriteString("/>") }

func (b *xmlOut) text(name, value string) {
	b.open(name)
	escape(b, value)
	b.close(name)
}

func (b *xmlOut) int(name string, value int) {
	b.open(name)
	b.WriteString(strconv.Itoa(value))
	b.close(name)
}

func (b *xmlOut) cdata(name, value string) {
	b.open(name)
	b.WriteString("<![CDATA[")
	if strings.Contains(value, "]]>") {
		value = strings.ReplaceAll(value, "]]>", "]]]]><![CDATA[>")
	}
	b.WriteString(value)
	b.WriteString("]]>")
	b.close(name)
}

// cdataOrEmpty writes <NAME/> for an empty value, as oned does for a network's own fields.
func (b *xmlOut) cdataOrEmpty(name, value string) {
	if value == "" {
		b.empty(name)
		return
	}
	b.cdata(name, value)
}

// ids writes <NAME><ID>1</ID>...</NAME>.
func (b *xmlOut) ids(name string, ids []int) {
	b.open(name)
	for _, id := range ids {
		b.int("ID", id)
	}
	b.close(name)
}

// vector writes <NAME><KEY>..</KEY>..</NAME> with the pairs as given.
func (b *xmlOut) vector(name string, pairs []pair) {
	b.open(name)
	for _, p := range pairs {
		b.cdata(p.key, p.value)
	}
	b.close(name)
}
