package bgp

import (
	"errors"
	"testing"
)

func TestParseCommunity(t *testing.T) {
	for text, want := range map[string]uint32{
		"64512:100": 64512<<16 | 100, "0:0": 0, "65535:65535": 0xffffffff, "no-export": 0xffffff01, "no-advertise": 0xffffff02,
		"no-peer": 0xffffff04, "blackhole": 0xffff029a, "graceful-shutdown": 0xffff0000,
	} {
		if got, err := ParseCommunity(text); err != nil || got != want {
			t.Errorf("%s: %x, %v, want %x", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "1:2:3", "65536:1", "1:65536", "-1:1", "no-such", "1:", ":1", "1:+1"} {
		if _, err := ParseCommunity(text); !errors.Is(err, ErrCommunity) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseLargeCommunity(t *testing.T) {
	if got, err := ParseLargeCommunity("4294967294:0:4294967295"); err != nil || got != [3]uint32{4294967294, 0, 4294967295} {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"", "1:2", "1:2:3:4", "4294967296:1:1", "4294967295:1:1", "a:b:c"} {
		if _, err := ParseLargeCommunity(text); !errors.Is(err, ErrCommunity) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("64512:100")
	f.Add("64512:1:2")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ParseCommunity(text); err != nil && !errors.Is(err, ErrCommunity) {
			t.Error(err)
		}
		if _, err := ParseLargeCommunity(text); err != nil && !errors.Is(err, ErrCommunity) {
			t.Error(err)
		}
	})
}
