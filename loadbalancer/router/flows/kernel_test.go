package flows

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/test/lab/ns"
)

// examples are of both families and protocols, with and without a hidden client.
func examples() []Connection {
	ap := netip.MustParseAddrPort
	return []Connection{
		{
			Key: Key{Protocol: TCP, Client: ap("198.51.100.9:40000"), Frontend: ap("203.0.113.100:80")}, Backend: ap("10.20.0.11:30080"), Source: ap("198.51.100.9:40000"),
			TCPState: tcpEstablished, Timeout: 1000, Labels: [16]byte{15: 0x80},
		},
		{
			Key: Key{Protocol: TCP, Client: ap("198.51.100.9:40001"), Frontend: ap("203.0.113.100:80")}, Backend: ap("10.20.0.12:30080"), Source: ap("10.20.0.1:40001"),
			TCPState: 5, Timeout: 50, Mark: 7,
		},
		{
			Key: Key{Protocol: UDP, Client: ap("[2001:db8::9]:53000"), Frontend: ap("[2001:db8:113::100]:53")}, Backend: ap("[fd00:20::11]:30053"), Source: ap("[fd00:20::1]:53000"),
			Timeout: 120,
		},
	}
}

// inNamespace opens the tracking of a namespace of the test's own.
func inNamespace(t *testing.T) (*ns.Namespace, *Kernel) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-flows-%d", os.Getpid())
	if err := ns.DeleteNamed(name); err != nil {
		t.Fatal(err)
	}
	n, err := ns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Delete() })
	// The kernel keeps labels only where a rule uses them.
	if err := n.Do(exec.Command("nft", "add table ip x; add chain ip x c; add rule ip x c ct label set 1").Run); err != nil {
		t.Fatal(err)
	}
	var k *Kernel
	if err := n.Do(func() error { k, err = Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return n, k
}

func list(t *testing.T, k *Kernel) map[Key]Connection {
	t.Helper()
	all := map[Key]Connection{}
	if err := k.List(t.Context(), func(c Connection) { all[c.Key] = c }); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPutListDelete: what is written is what is read, also in place of something
// that has one of its tuples.
func TestPutListDelete(t *testing.T) {
	_, k := inNamespace(t)
	for _, c := range examples() {
		other := c
		other.Backend = netip.AddrPortFrom(c.Backend.Addr().Next(), 1)
		if err := k.Put(other); err != nil {
			t.Fatal(err)
		}
		// The backend's answer came before and stands as a connection from it.
		answer := Connection{Key: Key{Protocol: c.Protocol, Client: c.Backend, Frontend: c.Source}, Backend: c.Source, Source: c.Backend, TCPState: c.TCPState, Timeout: 100}
		if err := k.Put(answer); err != nil {
			t.Fatal(err)
		}
		if err := k.Put(c); err != nil {
			t.Fatal(err)
		}
		got := list(t, k)
		if len(got) != 1 || !got[c.Key].Same(c) {
			t.Errorf("put %+v, found %+v", c, got)
		}
		if left := got[c.Key].Timeout; left > c.Timeout || left+30 < c.Timeout {
			t.Errorf("timeout %d, want about %d", left, c.Timeout)
		}
		for range 2 { // the second time it is not there
			if err := k.Delete(c.Key); err != nil {
				t.Error(err)
			}
		}
		if got := list(t, k); len(got) != 0 {
			t.Errorf("left: %+v", got)
		}
	}
}

// TestWatch: each change is told.
func TestWatch(t *testing.T) {
	n, k := inNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, events, done := make(chan struct{}), make(chan Event, 100), make(chan error, 1)
	go func() {
		// The thread has left the test's namespace when it ends with this goroutine.
		runtime.LockOSThread()
		done <- n.Do(func() error { return Watch(ctx, func() { close(ready) }, func(e Event) { events <- e }) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	for _, c := range examples() {
		if err := k.Put(c); err != nil {
			t.Fatal(err)
		}
		if e := <-events; e.Ended || !e.Same(c) {
			t.Errorf("put %+v, told %+v", c, e)
		}
		if err := k.Delete(c.Key); err != nil {
			t.Fatal(err)
		}
		if e := <-events; !e.Ended || e.Key != c.Key {
			t.Errorf("deleted %+v, told %+v", c.Key, e)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWorth: only what another router can go on with is told.
func TestWorth(t *testing.T) {
	for i, c := range examples() {
		c.status = assured
		for state := range uint8(10) {
			c.TCPState = state
			if want := c.Protocol == UDP || slices.Contains([]uint8{3, 4, 5, 6}, state); c.worth() != want {
				t.Errorf("example %d in state %d: %v", i, state, !want)
			}
		}
		c.TCPState, c.Backend, c.Source = tcpEstablished, c.Frontend, c.Client
		if c.worth() {
			t.Errorf("example %d is told although nothing is translated", i)
		}
	}
	if c := examples()[2]; c.worth() {
		t.Error("a UDP connection that is not assured is told")
	}
}

// FuzzDecode: whatever a message holds, it is read or refused.
func FuzzDecode(f *testing.F) {
	for _, c := range examples() {
		b, err := c.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		got, err := decode(b)
		if err != nil || got.Key != c.Key || got.TCPState != c.TCPState || got.Timeout != c.Timeout || got.Labels != c.Labels || got.Mark != c.Mark {
			f.Errorf("%+v reads as %+v, %v", c, got, err)
		}
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = decode(b) })
}

// TestLateAnswers: answers that come after the deadline of their question spoil one
// exchange at most, not all that follow.
func TestLateAnswers(t *testing.T) {
	n, k := inNamespace(t)
	if err := k.Put(examples()[0]); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		question := netlink.Message{Header: netlink.Header{Type: messageGet, Flags: netlink.Request | netlink.Dump}, Data: []byte{unix.AF_INET, 0, 0, 0}}
		if _, err := k.conn.Send(question); err != nil {
			t.Fatal(err)
		}
		err := n.Do(func() error { // a new socket is of the namespace that it is opened in
			_ = k.List(t.Context(), func(Connection) {})
			return k.List(t.Context(), func(Connection) {})
		})
		if err != nil {
			t.Error(err)
		}
	}
}
