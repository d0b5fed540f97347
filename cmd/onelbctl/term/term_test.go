package term

import (
	"bytes"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	for _, tt := range []struct {
		used, total int64
		want        string
	}{
		{0, 0, "[..........]"}, {0, 100, "[..........]"}, {1, 1000, "[#.........]"}, {50, 100, "[#####.....]"},
		{100, 100, "[##########]"}, {120, 100, "[##########]"},
	} {
		if got := Bar(tt.used, tt.total); got != tt.want {
			t.Errorf("%d of %d: %s, want %s", tt.used, tt.total, got, tt.want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	for ago, want := range map[time.Duration]string{
		-time.Second: "0s", 90 * time.Second: "90s", 3 * time.Minute: "3m", 3 * time.Hour: "3h", 50 * time.Hour: "2d",
	} {
		if got := Age(now, now.Add(-ago)); got != want {
			t.Errorf("%s ago: %s, want %s", ago, got, want)
		}
	}
	if got := Age(now, time.Time{}); got != "" {
		t.Errorf("never: %q", got)
	}
}

func TestTableIsAlignedWhateverIsPainted(t *testing.T) {
	rows := [][]Cell{{{Text: "é", Colour: Red}, Text(""), {Text: "x"}}, {{Text: "long"}, {Text: "b"}, {Text: "y"}}}
	var out bytes.Buffer
	if err := (Painter{}).Table(&out, []string{"A", "B", "C"}, rows); err != nil || out.String() != "A     B  C\né     -  x\nlong  b  y\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	if err := (Painter{Colours: true}).Table(&out, []string{"A", "B", "C"}, rows); err != nil || !bytes.Contains(out.Bytes(), []byte("\x1b[31mé\x1b[0m     -")) {
		t.Errorf("%v\n%q", err, out.String())
	}
	if For(&out).Colours {
		t.Error("a buffer is no terminal")
	}
}

func TestOutput(t *testing.T) {
	var out bytes.Buffer
	for form, want := range map[Output]string{JSON: "{\n  \"a\": 1\n}\n", YAML: "a: 1\n"} {
		out.Reset()
		if done, err := form.Encode(&out, map[string]int{"a": 1}); !done || err != nil || out.String() != want {
			t.Errorf("%s: %v %v %q", form, done, err, out.String())
		}
	}
	if done, err := Wide.Encode(&out, nil); done || err != nil {
		t.Errorf("%v %v", done, err)
	}
}
