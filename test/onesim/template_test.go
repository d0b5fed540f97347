package onesim

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func render(t *template) string {
	var b xmlOut
	t.writeXML(&b, "T")
	return strings.NewReplacer("<![CDATA[", "", "]]>", "").Replace(b.String())
}

func TestParseTemplate(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", "<T></T>"},
		{"sorted, names in capitals", "b=\"2\"\nA=1", "<T><A>1</A><B>2</B></T>"},
		{"vector", `N=[ B="x y", a=1 ]`, "<T><N><A>1</A><B>x y</B></N></T>"},
		{"repeated vectors keep their order", `N=[A="2"] N=[A="1"]`, "<T><N><A>2</A></N><N><A>1</A></N></T>"},
		{"a key given twice counts once", `N=[A="1",A="2"]`, "<T><N><A>2</A></N></T>"},
		{"comment and newlines", "# c\nA = \"x\ny\"\n# d\n", "<T><A>x\ny</A></T>"},
		{"escaped quote", `A="say \"hi\""`, `<T><A>say "hi"</A></T>`},
		{"backslash stays", `A="a\b"`, `<T><A>a\b</A></T>`},
		{"empty value", "A=\nB=1", "<T><A></A><B>1</B></T>"},
		{"xml", "<TEMPLATE><A>1</A><N><B>2</B></N></TEMPLATE>", "<T><A>1</A><N><B>2</B></N></T>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseTemplate(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if render(got) != tc.want {
				t.Errorf("got %s, want %s", render(got), tc.want)
			}
		})
	}
}

func TestParseTemplateErrors(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"LEASES = [ IP=", "unexpected $end, expecting STRING at line 0, columns 14:15"},
		{"A3=[", "unexpected $end, expecting CBRACKET or VARIABLE at line 0, columns 4:5"},
		{"A", "unexpected $end, expecting EQUAL or EQUAL_EMPTY at line 0, columns 1:2"},
		{"=1", "unexpected EQUAL, expecting VARIABLE at line 0, columns 0:1"},
		{"A=1\n]", "unexpected CBRACKET, expecting $end or VARIABLE at line 0, columns 0:1"},
		{`A=[B="1"`, "unexpected $end, expecting COMMA or CBRACKET at line 0, columns 8:9"},
		{`A="x`, "unexpected $end, expecting OBRACKET or STRING at line 0, columns 4:5"},
		{"<TEMPLATE><A>", "Parse error"},
	} {
		_, err := parseTemplate(tc.in)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %s", tc.in, err, tc.want)
		}
	}
}

func TestMerge(t *testing.T) {
	a := mustTemplate(`A="1" N=[X="1"] N=[X="2"] Z="z"`)
	a.merge(mustTemplate(`A="2" N=[X="3"]`))
	if got, want := render(a), "<T><A>2</A><N><X>3</X></N><Z>z</Z></T>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzParseTemplate: no input makes the parser fail otherwise than by an error, and what it has read it reads again
// from its XML form.
func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{`A="1"`, `N=[A="1",B=2]`, "A=\n", "#x", "A=[", `A="\"`, "<T><A>1</A></T>", "A=]]>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		first, err := parseTemplate(in)
		if err != nil || !expressible(first) {
			return
		}
		var b xmlOut
		first.writeXML(&b, "TEMPLATE")
		second, err := parseTemplate(b.String())
		if err != nil {
			t.Fatalf("%s: %v", b.String(), err)
		}
		if render(first) != render(second) {
			t.Errorf("%s became %s", render(first), render(second))
		}
	})
}

// expressible tells whether XML can say what the template says: not every name and byte, and not an empty vector.
func expressible(t *template) bool {
	name := func(s string) bool { return strings.Trim(s, "_ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" }
	value := func(s string) bool {
		return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
			return r < 0x20 && r != '\n' && r != '\t' || r == utf8.RuneError || r == 0xfffe || r == 0xffff
		})
	}
	for _, a := range t.attrs {
		if !name(a.name) || !value(a.value) || a.vector && len(a.pairs) == 0 {
			return false
		}
		for _, p := range a.pairs {
			if !name(p.key) || !value(p.value) {
				return false
			}
		}
	}
	return true
}
