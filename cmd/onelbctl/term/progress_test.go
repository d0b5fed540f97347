package term

import (
	"bytes"
	"testing"
)

func TestProgressIsForTerminals(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out)
	p.Show("one")
	p.Clear()
	if out.Len() > 0 {
		t.Errorf("a buffer got %q", out.String())
	}
	p = &Progress{w: &out}
	p.Clear()
	p.Show("one %d", 12)
	p.Show("two")
	p.Clear()
	if got, want := out.String(), "\rone 12\rtwo   \r   \r"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
