package gc

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
	"github.com/onelb/onelb/test/sample"
)

// world is a front-end with a reservation of the sample's cluster that no pool wants,
// which has one hold, and one of pool main with a hold for a VirtualIP and one for none.
type world struct {
	clients inventory.Clients
	front   *one.Client
	config  string
	ids     map[string]ipam.NetworkID
}

const uid = "uid-kube-system"

func newWorld(t *testing.T, change func(*sample.Cluster)) *world {
	t.Helper()
	sim, err := onesim.New(onesim.Options{})
	must(t, err)
	_, err = sim.AddUser("k8s", "k8spass123", "")
	must(t, err)
	parent, err := sim.AddVNet("", "NAME=\"private\"\nVN_MAD=\"dummy\"\nBRIDGE=\"br\"\nAR=[TYPE=\"IP4\",IP=\"10.20.0.100\",SIZE=\"50\"]\n")
	must(t, err)
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(server.Close)
	dir := t.TempDir()
	w := &world{config: filepath.Join(dir, "cloud-config.yaml"), ids: map[string]ipam.NetworkID{}}
	must(t, os.WriteFile(filepath.Join(dir, "one_auth"), []byte("k8s:k8spass123\n"), 0o600))
	must(t, os.WriteFile(w.config, fmt.Appendf(nil, "endpoint: %s/RPC2\ncredentials: {file: %s/one_auth}\ncluster: lab\n", server.URL, dir), 0o600))
	w.front, err = one.New(one.Options{Endpoint: server.URL + "/RPC2", Credentials: one.CredentialFile(filepath.Join(dir, "one_auth"))})
	must(t, err)
	w.reserve(t, parent, "main", "10.20.0.104", sample.L2Address, "10.20.0.108")
	w.reserve(t, parent, "old", "10.20.0.120", "10.20.0.121")
	c := sample.New()
	change(c)
	w.clients = inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reserve makes the reservation of a pool, from an address on, with holds.
func (w *world) reserve(t *testing.T, parent int, pool, first string, holds ...string) {
	t.Helper()
	id, err := w.front.Reserve(t.Context(), ipam.ReserveRequest{Parent: ipam.NetworkID(parent), Name: "lab-" + pool, Into: ipam.NoNetwork, Size: 8, First: netip.MustParseAddr(first)})
	must(t, err)
	w.ids[pool] = id
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		n, err := w.front.Get(t.Context(), id)
		if err == nil && n.Ready {
			break
		}
		if time.Now().After(end) {
			t.Fatal(n, err)
		}
	}
	must(t, w.front.Annotate(t.Context(), id, map[string]string{ipam.AttributeCluster: "lab", ipam.AttributeClusterUID: uid, ipam.AttributePool: pool}))
	for _, a := range holds {
		must(t, w.front.Hold(t.Context(), id, netip.MustParseAddr(a)))
	}
}

func (w *world) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := Command(func() (inventory.Clients, error) { return w.clients, nil })
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(append([]string{"--cloud-config", w.config}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// held counts the holds of a pool's reservation; -1: it is gone.
func (w *world) held(t *testing.T, pool string) int {
	t.Helper()
	n, err := w.front.Get(t.Context(), w.ids[pool])
	if errors.Is(err, ipam.ErrNotFound) || n.State == "LOCK_DELETE" {
		return -1
	}
	must(t, err)
	return len(n.Ranges[0].Leases)
}

func TestDryRun(t *testing.T) {
	w := newWorld(t, func(*sample.Cluster) {})
	out, err := w.run(t, "--dry-run")
	if err != nil || !strings.Contains(out, "goes back  hold of 10.20.0.108") || !strings.Contains(out, `goes back  reservation "lab-old"`) || !strings.Contains(out, "2 to be given back.") || strings.Contains(out, sample.L2Address) {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = w.run(t, "--dry-run", "-o", "json")
	if err != nil || !strings.Contains(out, `"address": "10.20.0.108"`) || strings.Contains(out, "invalid") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, bad := range [][]string{{"-o", "json"}, {"--grace", "-1s"}, {"-o", "xml", "--dry-run"}} {
		if _, err := w.run(t, bad...); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if w.held(t, "main") != 2 || w.held(t, "old") != 1 {
		t.Error("something was changed")
	}
}

func TestGivesBack(t *testing.T) {
	w := newWorld(t, func(c *sample.Cluster) { c.Leader = nil })
	out, err := w.run(t, "--grace", "10ms")
	if err != nil || !strings.Contains(out, "Gave back the hold of 10.20.0.108") || !strings.Contains(out, `Gave back the reservation "lab-old"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if w.held(t, "main") != 1 || w.held(t, "old") != -1 {
		t.Errorf("%d and %d are left", w.held(t, "main"), w.held(t, "old"))
	}
}

// TestALeaderIsNotDisturbed: who gives addresses gives back, too.
func TestALeaderIsNotDisturbed(t *testing.T) {
	for name, change := range map[string]func(*sample.Cluster){
		"elected": func(*sample.Cluster) {},
		"alone": func(c *sample.Cluster) {
			c.Leader = nil
			c.Manager.Spec.Template.Spec.Containers[0].Args = []string{"--leader-elect=false"}
		},
		"a name without address": func(c *sample.Cluster) {
			c.Leader = nil
			c.VirtualIPs[0].Spec.Address = "nonsense"
		},
	} {
		w := newWorld(t, change)
		if _, err := w.run(t, "--grace", "1ms"); err == nil || !strings.Contains(err.Error(), "nothing was changed") || w.held(t, "main") != 2 || w.held(t, "old") != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestALeaderWithAnotherClock renews a Lease that looks old here.
func TestALeaderWithAnotherClock(t *testing.T) {
	var leases int
	old := metav1.NewMicroTime(time.Now().Add(-time.Hour))
	w := newWorld(t, func(c *sample.Cluster) {
		c.Leader.Spec.RenewTime = &old
		c.Leader.Spec.LeaseDurationSeconds = nil // the test does not wait for it
	})
	w.clients.Kube.(*fake.Clientset).PrependReactor("get", "leases", func(ktesting.Action) (bool, runtime.Object, error) {
		leases++
		l := sample.New().Leader
		renewed := metav1.NewMicroTime(old.Add(time.Duration(max(0, leases-2)) * time.Second)) // from the third look on
		l.Spec.RenewTime = &renewed
		l.Spec.LeaseDurationSeconds = nil
		return true, l, nil
	})
	out, err := w.run(t, "--grace", "1ms")
	if !errors.Is(err, ErrLed) || strings.Count(out, "Gave back") != 1 || leases != 3 {
		t.Errorf("%v, %d looks\n%s", err, leases, out)
	}
}

func TestRenewal(t *testing.T) {
	l := sample.New().Leader
	if got := renewal(l); got != time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second {
		t.Errorf("%s", got)
	}
	l.Spec.HolderIdentity = new(string) // given back
	if renewal(l) != 0 || renewal(nil) != 0 {
		t.Error("nobody renews it, and it is waited for")
	}
	again := l.DeepCopy()
	if renewed(l, again) || renewed(nil, nil) || renewed(l, nil) || !renewed(nil, l) {
		t.Error("the same Lease is another")
	}
	again.UID = "other"
	if !renewed(l, again) {
		t.Error("another Lease is the same")
	}
}

// TestWhatIsMadeMeanwhileStays: it was unwanted at the first look only.
func TestWhatIsMadeMeanwhileStays(t *testing.T) {
	w := newWorld(t, func(c *sample.Cluster) { c.Leader = nil })
	wanted, err := wanted(t.Context(), w.clients.OneLB)
	must(t, err)
	if len(wanted.Pools) != 2 || len(wanted.Addresses["main"]) != 1 {
		t.Fatalf("%+v", wanted)
	}
	svc := sample.Service("default", "new", "")
	_, err = w.clients.OneLB.VirtualIPs().Create(t.Context(), sample.VirtualIP("10.20.0.108", "main", svc), metav1.CreateOptions{})
	must(t, err)
	if out, err := w.run(t, "--dry-run"); err != nil || strings.Contains(out, "10.20.0.108") {
		t.Errorf("%v\n%s", err, out)
	}
}
