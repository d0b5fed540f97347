package member

import (
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func received(t *testing.T, from *transport) *memberlist.Packet {
	t.Helper()
	select {
	case p := <-from.PacketCh():
		return p
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

func TestTransport(t *testing.T) {
	here := func(f func() error) error { return f() }
	listen := func(last byte) *transport {
		t.Helper()
		x, err := newTransport(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 77, last}), 17947), here)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Shutdown() })
		return x
	}
	a, b := listen(1), listen(2)
	if _, err := newTransport(a.bound, here); err == nil {
		t.Error("listens twice")
	}
	for _, text := range []string{"the first", "second"} {
		if _, err := a.WriteTo([]byte(text), b.bound.String()); err != nil {
			t.Fatal(err)
		}
	}
	first, second := received(t, b), received(t, b)
	if string(first.Buf) != "the first" || string(second.Buf) != "second" || first.From.String() != a.bound.String() {
		t.Errorf("%q, then %q from %s", first.Buf, second.Buf, first.From)
	}
	if cap(first.Buf) > 1024 {
		t.Errorf("a datagram of 9 bytes keeps %d", cap(first.Buf))
	}
	conn, err := a.DialAddressTimeout(memberlist.Address{Addr: b.bound.String()}, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	select {
	case in := <-b.StreamCh():
		_ = in.Close()
	case <-time.After(30 * time.Second):
		t.Fatal("no connection came")
	}
	if _, err := a.WriteTo([]byte("x"), b.bound.String()); err != nil { // nobody reads it
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Shutdown(); err != nil {
			t.Error(err)
		}
	}
}
