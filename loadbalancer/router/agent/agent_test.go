package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

func TestPush(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	g1 := c.Set(doc("lab", "203.0.113.100", 3))
	b.must(b.wait(c, g1))
	if got := b.size(); got.Frontends != 3 {
		t.Errorf("kernel has %+v", got)
	}
	if again := c.Set(doc("lab", "203.0.113.100", 3)); again != g1 {
		t.Errorf("the same document became generation %d, want %d", again, g1)
	}
	g2 := c.Set(doc("lab", "203.0.113.100", 5))
	b.must(b.wait(c, g2))
	s := c.State()
	i := s.Instances[0]
	if s.Generation != g2 || i.Generation != g2 || !i.Current || !i.Reachable || !i.Master || i.Err != nil || i.Version != "test" {
		t.Errorf("state %+v", s)
	}
	if got := b.size(); got.Frontends != 5 {
		t.Errorf("kernel has %+v", got)
	}
}

// TestRestart: the documents are in force before any client comes, and numbers continue.
func TestRestart(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	g := c.Set(doc("lab", "203.0.113.100", 3))
	b.must(b.wait(c, g))
	b.stop()
	b.kernel.size.Frontends = 0
	b.start()
	b.eventually("restored", func() bool { return b.size().Frontends == 3 })
	// A new leader knows nothing of the old one's numbers.
	next := b.client("lab", 2)
	g2 := next.Set(doc("lab", "203.0.113.100", 4))
	b.must(b.wait(next, g2))
	if s := next.State(); s.Generation <= g || b.size().Frontends != 4 {
		t.Errorf("generation %d after %d, kernel %+v", s.Generation, g, b.size())
	}
	// The old leader is fenced off and stays so.
	stale := c.Set(doc("lab", "203.0.113.100", 1))
	b.eventually("the old leader is told", func() bool {
		err := c.State().Instances[0].Err
		var r *router.RejectedError
		return errors.As(err, &r) && r.Reason == router.ReasonStaleToken
	})
	var rejected *router.RejectedError
	if err := b.wait(c, stale); !errors.As(err, &rejected) || rejected.Reason != router.ReasonStaleToken {
		t.Errorf("old leader: %v", err)
	}
	if b.size().Frontends != 4 {
		t.Errorf("kernel %+v", b.size())
	}
}

// TestLostDisk: the client brings back what the router has forgotten.
func TestLostDisk(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 3))))
	b.stop()
	b.must(os.RemoveAll(b.path("state")))
	b.kernel.size.Frontends = 0
	b.start()
	b.eventually("pushed again", func() bool { return b.size().Frontends == 3 && c.State().Instances[0].Current })
}

func TestCompareAndSwap(t *testing.T) {
	b := newBench(t)
	b.start()
	rpc := b.raw("lab")
	d := doc("lab", "203.0.113.100", 2)
	for _, step := range []struct {
		name    string
		request *wire.ApplyRequest
		want    router.Reason
	}{
		{"first", whole(d, 0, 5, 3), ""},
		{"the same again, its answer was lost", whole(d, 0, 5, 3), ""},
		{"other base", whole(doc("lab", "203.0.113.100", 1), 4, 6, 3), router.ReasonGeneration},
		{"not larger", whole(doc("lab", "203.0.113.100", 1), 5, 5, 3), router.ReasonGeneration},
		{"older leader", whole(doc("lab", "203.0.113.100", 1), 5, 6, 2), router.ReasonStaleToken},
		{"newer leader", whole(d, 5, 6, 4), ""},
		{"the old leader again", whole(d, 6, 7, 3), router.ReasonStaleToken},
		{"other hash", func() *wire.ApplyRequest { r := whole(d, 6, 7, 4); r.Hash = "x"; return r }(), router.ReasonHash},
		{"unfitting difference", &wire.ApplyRequest{Cluster: "lab", Identity: "uid-lab", Token: 4, BaseGeneration: 6, Generation: 7, RemovedGroups: []string{"x"}}, router.ReasonHash},
		{"group taken away", func() *wire.ApplyRequest { r := whole(d, 6, 7, 4); r.Groups = nil; return r }(), router.ReasonInvalid},
		{"broken address", func() *wire.ApplyRequest {
			r := whole(d, 6, 7, 4)
			r.Frontends[0].Key.Address = []byte{1, 2, 3}
			return r
		}(), router.ReasonInvalid},
		{"other identity", func() *wire.ApplyRequest { r := whole(d, 6, 7, 4); r.Identity = "x"; return r }(), router.ReasonIdentity},
		{"unknown address", whole(doc("lab", "198.51.100.1", 1), 6, 7, 4), router.ReasonUnknownAddress},
		{"all away", whole(doc("lab", "203.0.113.100", 0), 6, 7, 4), ""},
	} {
		answer, err := rpc.Apply(t.Context(), step.request)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := router.Reason(answer.GetRejection().GetReason()); got != step.want {
			t.Errorf("%s: %q (%s), want %q", step.name, got, answer.GetRejection().GetMessage(), step.want)
		}
	}
}

// TestClusters: none sees or touches another's.
func TestClusters(t *testing.T) {
	b := newBench(t)
	b.start()
	lab, other := b.client("lab", 1), b.client("other", 1)
	b.must(b.wait(lab, lab.Set(doc("lab", "203.0.113.100", 2))))
	var rejected *router.RejectedError
	if err := b.wait(other, other.Set(doc("other", "203.0.113.100", 1))); !errors.As(err, &rejected) || rejected.Reason != router.ReasonTaken ||
		rejected.Service != "default/s0" || strings.Contains(rejected.Message, "lab") {
		t.Errorf("address of another cluster: %v", err)
	}
	b.must(b.wait(other, other.Set(doc("other", "203.0.113.101", 4))))
	if got := b.size(); got.Frontends != 6 {
		t.Errorf("kernel has %+v", got)
	}
	b.must(b.wait(lab, lab.Set(doc("lab", "203.0.113.100", 0))))
	b.must(b.wait(other, other.Set(doc("other", "203.0.113.100", 1)))) // free now

	rpc := b.raw("other")
	if _, err := rpc.Apply(t.Context(), whole(doc("lab", "203.0.113.100", 1), 0, 1, 1)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("push for another cluster: %v", err)
	}
	stream, err := rpc.Watch(t.Context(), &wire.WatchRequest{Cluster: "lab"})
	b.must(err)
	if s, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("watch another cluster: %v, %v", s, err)
	}
}

// TestKernelRefuses: the running rules stay, on disk too.
func TestKernelRefuses(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 2))))
	file := filepath.Join(b.path("state"), "lab"+snapshotSuffix)
	before, err := os.ReadFile(file)
	b.must(err)
	b.kernel.mu.Lock()
	b.kernel.fail = errors.New("no such feature")
	b.kernel.mu.Unlock()
	var rejected *router.RejectedError
	if err := b.wait(c, c.Set(doc("lab", "203.0.113.100", 3))); !errors.As(err, &rejected) || rejected.Reason != router.ReasonKernel ||
		!strings.Contains(rejected.Message, "no such feature") {
		t.Errorf("error %v", err)
	}
	after, err := os.ReadFile(file)
	b.must(err)
	if !bytes.Equal(before, after) || b.size().Frontends != 2 {
		t.Errorf("disk changed %v, kernel %+v", !bytes.Equal(before, after), b.size())
	}
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 4))))
}

// TestDiskFull: a document that cannot be kept is refused as a whole.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	b := newBench(t)
	b.must(os.Mkdir(b.path("state"), 0o700))
	b.must(unix.Mount("tmpfs", b.path("state"), "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { b.must(unix.Unmount(b.path("state"), unix.MNT_DETACH)) })
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 2))))
	var rejected *router.RejectedError
	err := b.wait(c, c.Set(doc("lab", "203.0.113.100", 5000)))
	if !errors.As(err, &rejected) || rejected.Reason != router.ReasonStorage || !strings.Contains(rejected.Message, "no space left") {
		t.Errorf("error %v", err)
	}
	if got := b.size(); got.Frontends != 2 {
		t.Errorf("kernel has %+v", got)
	}
	b.stop()
	b.start()
	b.eventually("the old document is restored", func() bool { return b.size().Frontends == 2 })
}

// TestCorruptFile: it is set aside and reported; other clusters' documents stay.
func TestCorruptFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut off":      func(d []byte) []byte { return d[:len(d)/2] },
		"empty":        func([]byte) []byte { return nil },
		"one bit":      func(d []byte) []byte { d[len(d)-3] ^= 4; return d },
		"not ours":     func([]byte) []byte { return []byte("hello") },
		"other header": func(d []byte) []byte { d[3] = 'X'; return d },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.start()
			lab, other := b.client("lab", 1), b.client("other", 1)
			b.must(b.wait(lab, lab.Set(doc("lab", "203.0.113.100", 2))))
			b.must(b.wait(other, other.Set(doc("other", "203.0.113.101", 3))))
			b.stop()
			file := filepath.Join(b.path("state"), "lab"+snapshotSuffix)
			data, err := os.ReadFile(file)
			b.must(err)
			b.must(os.WriteFile(file, damage(data), 0o600))
			b.kernel.size.Frontends = 0
			b.start()
			b.eventually("both are back, lab by its client", func() bool { return b.size().Frontends == 5 })
			b.eventually("reported", func() bool {
				return strings.Contains(strings.Join(other.State().Instances[0].Problems, " "), "document of cluster lab is unusable")
			})
			if _, err := os.Stat(filepath.Join(b.path("state"), "lab"+badSuffix)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHealth: failing backends leave the table, all failing means all stay.
func TestHealth(t *testing.T) {
	b := newBench(t)
	var broken atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.HasPrefix(r.Host, "10.20.0.11:") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	b.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	b.start()
	c := b.client("lab", 1)
	d := doc("lab", "203.0.113.100", 1)
	d.Frontends[0].Protocol = router.UDP
	d.Groups[0].Check = &router.Check{Port: 10256, Path: "/healthz"}
	d.Groups[0].Members = append(d.Groups[0].Members, router.Member{Address: netip.MustParseAddr("10.20.0.12"), Node: "node-2"})
	b.must(b.wait(c, c.Set(d)))
	b.eventually("both healthy", func() bool { i := c.State().Instances[0]; return i.Members == 2 && i.Healthy == 2 })

	key := router.Key{Address: netip.MustParseAddr("203.0.113.100"), Protocol: router.UDP, Port: 1}
	foreign := Flow{Frontend: router.Key{Address: netip.MustParseAddr("192.0.2.1"), Protocol: router.UDP, Port: 1}, Backend: netip.MustParseAddrPort("10.20.0.11:30000")}
	kept := Flow{Frontend: key, Backend: netip.MustParseAddrPort("10.20.0.12:30000")}
	b.kernel.mu.Lock()
	b.kernel.flows = []Flow{{Frontend: key, Backend: netip.MustParseAddrPort("10.20.0.11:30000")}, kept, foreign}
	b.kernel.mu.Unlock()
	broken.Store(true)
	b.eventually("one down", func() bool { i := c.State().Instances[0]; return i.Healthy == 1 && len(i.Down) == 1 })
	if down := c.State().Instances[0].Down[0]; down.Node != "node-1" || !strings.Contains(down.Message, "503") {
		t.Errorf("down: %+v", down)
	}
	b.kernel.mu.Lock()
	if got := b.kernel.flows; len(got) != 2 || got[0] != kept || got[1] != foreign {
		t.Errorf("flows left: %v", got)
	}
	b.kernel.mu.Unlock()
	broken.Store(false)
	b.eventually("both again", func() bool { return c.State().Instances[0].Healthy == 2 })
	server.Close()
	b.eventually("all down", func() bool { return c.State().Instances[0].Healthy == 0 })
	if got := b.size(); got.Groups != 1 {
		t.Errorf("all down: kernel has %+v, want the group to stay", got)
	}
	b.eventually("it is said", func() bool {
		return strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), "every backend fails its check in nodes: ")
	})
}
