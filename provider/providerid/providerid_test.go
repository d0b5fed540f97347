package providerid

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for id, want := range map[string]int{"one://0": 0, "one://42": 42, "one://2147483647": 2147483647} {
		if got, err := Parse(id); err != nil || got != want || Format(got) != id {
			t.Errorf("%q: %d, %v", id, got, err)
		}
	}
	for _, id := range []string{"one://", "one://-1", "one://+1", "one://01", "one:// 1", "one://1/", "one://x", "one://2147483648", "one:///1"} {
		if got, err := Parse(id); err == nil || errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), id) {
			t.Errorf("%q: %d, %v", id, got, err)
		}
	}
	for _, id := range []string{"", "1", "kind://docker/a/b", "ONE://1", "one:/1"} {
		if got, err := Parse(id); !errors.Is(err, ErrForeign) {
			t.Errorf("%q: %d, %v", id, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"one://1", "one://", "", "one://00", "one://99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		vm, err := Parse(id)
		if err == nil && (vm < 0 || Format(vm) != id) {
			t.Errorf("%q became %d", id, vm)
		}
	})
}
