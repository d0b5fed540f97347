package one

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decode reads a template as an XML parser does.
func decode(t *testing.T, template string) map[string]string {
	t.Helper()
	var x struct {
		XMLName xml.Name `xml:"TEMPLATE"`
		Attrs   []struct {
			XMLName xml.Name
			Value   string     `xml:",chardata"`
			Members []xml.Name `xml:",any"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(template), &x); err != nil {
		t.Fatalf("%q: %v", template, err)
	}
	out := map[string]string{}
	for _, a := range x.Attrs {
		if _, twice := out[a.XMLName.Local]; twice || len(a.Members) > 0 {
			t.Fatalf("%q has more attributes than were given", template)
		}
		out[a.XMLName.Local] = a.Value
	}
	return out
}

func TestTemplateKeepsValues(t *testing.T) {
	values := map[string]string{
		"QUOTES":  `a "b" 'c' \" \\`,
		"NEWLINE": "a\nBRIDGE=\"br0\"\tb",
		"BRACKET": `x ] , BRIDGE = [ a = "b" ]`,
		"XML":     `</TEMPLATE><BRIDGE>br0</BRIDGE><!-- & &amp; <![CDATA[`,
		"UNICODE": "grün 🦉",
		"EMPTY":   "",
	}
	got, err := encodeTemplate(singles(values)...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(values, decode(t, got)); diff != "" {
		t.Error(diff)
	}
}

func TestTemplateRefuses(t *testing.T) {
	for _, a := range []attribute{
		{name: "lower", value: "x"},
		{name: "", value: "x"},
		{name: "A><B", value: "x"},
		{name: "A", value: "a]]>b"},
		{name: "A", value: "a\x00b"},
		{name: "A", value: "a\rb"},
		{name: "A", value: "\xff"},
		{name: "A", members: []attribute{{name: "B", value: "]]>"}}},
	} {
		if got, err := encodeTemplate(a); err == nil {
			t.Errorf("%+v became %q", a, got)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("ONELB_CLUSTER", "lab", `x"]`)
	f.Add("A", "]]>", "</A>")
	f.Fuzz(func(t *testing.T, name, one, two string) {
		template, err := encodeTemplate(attribute{name: name, value: one}, attribute{name: "SECOND", value: two})
		if err != nil || name == "SECOND" {
			return
		}
		if diff := cmp.Diff(map[string]string{name: one, "SECOND": two}, decode(t, template)); diff != "" {
			t.Error(diff)
		}
		if strings.Count(template, "<") != 6 {
			t.Errorf("%q has other elements", template)
		}
	})
}
