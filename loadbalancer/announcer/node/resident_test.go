package node

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const someMappings = `00400000-01510000 r-xp 00000000 fe:00 100 /onelb-node
Size:              17472 kB
Rss:               12000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01510000-02890000 r--p 01110000 fe:00 100 /onelb-node
Anonymous:             4 kB
02890000-02940000 r--p 02490000 fe:00 100 /onelb-node
Anonymous:             0 kB
02940000-02970000 rw-p 02540000 fe:00 100 /onelb-node
Anonymous:             0 kB
02970000-02980000 r--p 00000000 fe:00 101 /lib/other
Anonymous:             0 kB
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
Anonymous:             0 kB
`

// What somebody may have written to, such as relocations, is not given back.
func TestUnmodified(t *testing.T) {
	got, err := unmodified(strings.NewReader(someMappings), "/onelb-node")
	if want := []mapping{{0x400000, 0x1510000}, {0x2890000, 0x2940000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if _, err := unmodified(strings.NewReader("x-y r-xp 00000000 fe:00 100 /a\n"), "/a"); err == nil {
		t.Error("no error for what is no mapping")
	}
}

// The program goes on after its pages were given back, from wherever they come now.
func TestUnmapProgram(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	mappings := func() (out []mapping) {
		f, err := os.Open("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if out, err = unmodified(f, path); err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := mappings()
	if len(before) == 0 {
		t.Error("nothing to give back")
	}
	for range 3 {
		if err := unmapProgram(); err != nil {
			t.Error(err)
		}
	}
	if after := mappings(); !slices.Equal(before, after) {
		t.Errorf("%x before, %x after", before, after)
	}
}
