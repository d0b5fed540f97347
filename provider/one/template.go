package one

import (
	"encoding/xml"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// attribute is one attribute of a template, with a value or with members.
type attribute struct {
	name    string
	value   string
	members []attribute
}

// attributeName is what oned accepts and keeps as it is: it turns lower case to
// upper case, so that an attribute in lower case would not be found again.
var attributeName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// encodeTemplate writes a template in OpenNebula's XML form. Unlike the text form
// (NAME="value") it has a full set of escapes, so a value cannot end its string
// and become an attribute of its own.
func encodeTemplate(attributes ...attribute) (string, error) {
	var b strings.Builder
	b.WriteString("<TEMPLATE>")
	for _, a := range attributes {
		if err := a.encode(&b); err != nil {
			return "", err
		}
	}
	b.WriteString("</TEMPLATE>")
	return b.String(), nil
}

func (a attribute) encode(b *strings.Builder) error {
	if !attributeName.MatchString(a.name) {
		return fmt.Errorf("attribute name %q: must consist of A-Z, 0-9 and _", a.name)
	}
	b.WriteString("<" + a.name + ">")
	for _, m := range a.members {
		if err := m.encode(b); err != nil {
			return err
		}
	}
	if err := checkValue(a.value); err != nil {
		return fmt.Errorf("attribute %s: %w", a.name, err)
	}
	// Escapes quotes and newlines too, and cannot fail on a strings.Builder.
	_ = xml.EscapeText(b, []byte(a.value))
	b.WriteString("</" + a.name + ">")
	return nil
}

// checkValue refuses what OpenNebula cannot keep. It writes values as CDATA into
// its database and answers: "]]>" there makes the whole object unreadable, and so
// do most control characters.
func checkValue(v string) error {
	if !utf8.ValidString(v) {
		return fmt.Errorf("value %q is not UTF-8", v)
	}
	if strings.Contains(v, "]]>") {
		return fmt.Errorf("value %q contains ]]>, which OpenNebula cannot store", v)
	}
	for _, r := range v {
		if r < ' ' && r != '\t' && r != '\n' || r == 0xFFFE || r == 0xFFFF {
			return fmt.Errorf("value %q contains the character %U, which OpenNebula cannot store", v, r)
		}
	}
	return nil
}

// singles makes attributes of a map, sorted by name.
func singles(values map[string]string) []attribute {
	out := make([]attribute, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, attribute{name: name, value: values[name]})
	}
	return out
}
