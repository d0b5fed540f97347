package bfd

import (
	"testing"
	"time"
)

func TestPacketComesBack(t *testing.T) {
	p := packet{state: Up, diag: diagNeighbour, poll: true, multiplier: 3, my: 7, your: 9, tx: 100 * time.Millisecond, rx: 50 * time.Millisecond}
	b := p.append(nil)
	if got, err := parse(b); err != nil || got != p || len(b) != packetSize {
		t.Errorf("%+v, %v, %d bytes", got, err, len(b))
	}
	p.poll, p.final, p.state = false, true, Init
	if got, err := parse(append(p.append(nil), 1, 2, 3)); err != nil || got != p {
		t.Errorf("with a tail: %+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := packet{state: Up, multiplier: 3, my: 7, your: 9, tx: time.Second, rx: time.Second}
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                 func([]byte) []byte { return nil },
		"too short":               func(b []byte) []byte { return b[:23] },
		"another version":         func(b []byte) []byte { b[0] = 0; return b },
		"a length past the end":   func(b []byte) []byte { b[3] = 25; return b },
		"a length that is small":  func(b []byte) []byte { b[3] = 23; return b },
		"multiplier 0":            func(b []byte) []byte { b[2] = 0; return b },
		"multipoint":              func(b []byte) []byte { b[1] |= flagMultipoint; return b },
		"authentication":          func(b []byte) []byte { b[1] |= flagAuth; return b },
		"no discriminator":        func(b []byte) []byte { copy(b[4:8], make([]byte, 4)); return b },
		"up without our number":   func(b []byte) []byte { copy(b[8:12], make([]byte, 4)); return b },
		"init without our number": func(b []byte) []byte { b[1] = byte(Init) << 6; copy(b[8:12], make([]byte, 4)); return b },
	} {
		if p, err := parse(spoil(good.append(nil))); err == nil {
			t.Errorf("%s is taken: %+v", name, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packet{state: Down, multiplier: 3, my: 1}.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		if again, err := parse(p.append(nil)); err != nil || again != p {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}
