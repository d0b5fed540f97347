package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/test/lab/ns"
)

const nsPrefix = "onelb-node-"

func TestMain(m *testing.M) {
	left, _ := ns.Named(nsPrefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// machine is a namespace with eth0 (10.78.0.11/24) and an API server of its own.
type machine struct {
	t     *testing.T
	ns    *ns.Namespace
	o     Options
	kube  *fake.Clientset
	onelb *onelbfake.Clientset
}

const vipName = "10.78.0.100"

func virtualIP() *v1alpha1.VirtualIP {
	return &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: vipName},
		Spec: v1alpha1.VirtualIPSpec{
			Address: vipName, Pool: "p", Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster,
			Services: []v1alpha1.ServiceReference{{Namespace: "default", Name: "web", UID: "u1"}},
		},
	}
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := ns.New(fmt.Sprintf("%s%d", nsPrefix, time.Now().UnixNano()))
	must(t, err)
	t.Cleanup(func() { must(t, n.Delete()) })
	must(t, n.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "peer"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		a, _ := netlink.ParseAddr("10.78.0.11/24")
		l, _ := netlink.LinkByName("eth0")
		return netlink.AddrAdd(l, a)
	}))
	m := &machine{t: t, ns: n, o: Defaults(), kube: fake.NewSimpleClientset(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.78.0.11"}}},
	}), onelb: onelbfake.New(virtualIP())}
	m.o.NodeName, m.o.StateDir, m.o.Enter = "node-1", t.TempDir(), n.Do
	m.o.GossipKeyFile = filepath.Join(t.TempDir(), "key")
	m.o.AddressLifetime = 10 * time.Second // none lapses because the agent waits for a processor
	must(t, os.WriteFile(m.o.GossipKeyFile, bytes.Repeat([]byte{3}, 32), 0o600))
	must(t, m.o.Validate())
	return m
}

// fakeKube is the kube of a clientset.
type fakeKube struct{ *fake.Clientset }

func (f fakeKube) Nodes() cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(listWatch(f.CoreV1().Nodes().List, f.CoreV1().Nodes().Watch), f.Clientset)
}

func (f fakeKube) EndpointSlices() cache.ListerWatcher {
	all := f.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	return cache.ToListWatcherWithWatchListSemantics(listWatch(all.List, all.Watch), f.Clientset)
}

func (f fakeKube) Events(context.Context) record.EventSink {
	return &typedcorev1.EventSinkImpl{Interface: f.CoreV1().Events("")}
}

func (f fakeKube) DaemonSet(ctx context.Context, namespace, name string) (*daemonSet, error) {
	found, err := f.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	d := &daemonSet{}
	return d, json.Unmarshal(raw, d)
}

// start runs the program; the returned function stops it.
func (m *machine) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newAgent(m.o, fakeKube{m.kube}, m.onelb).Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		must(m.t, <-done)
	}
	m.t.Cleanup(stop)
	return stop
}

func (m *machine) has(a netip.Addr) bool { return m.lifetime(a) > 0 }

// lifetime is what is left of an address' lifetime; zero: it is not there.
func (m *machine) lifetime(a netip.Addr) time.Duration {
	table, err := addr.Open(addr.Options{Enter: m.ns.Do})
	must(m.t, err)
	defer func() { _ = table.Close() }()
	var ours []addr.Entry
	for range 10 { // the kernel makes and removes other namespaces meanwhile
		if ours, err = table.Ours(func(netip.Addr) bool { return false }); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	must(m.t, err)
	for _, e := range ours {
		if e.Address == a {
			return e.Valid + time.Nanosecond // the last second counts, too
		}
	}
	return 0
}

// renewed waits until the kernel has been given an address' lifetime anew, and fails if
// it is not there all the time.
func (m *machine) renewed(a netip.Addr) {
	m.t.Helper()
	left := m.lifetime(a)
	eventually(m.t, "the lifetime is renewed", func() bool {
		before := left
		if left = m.lifetime(a); left == 0 {
			m.t.Fatal("the address went")
		}
		return left > before
	})
}

func (m *machine) vip() *v1alpha1.VirtualIP {
	v, err := m.onelb.VirtualIPs().Get(context.Background(), vipName, metav1.GetOptions{})
	must(m.t, err)
	return v
}

func (m *machine) events(reason string) (out []corev1.Event) {
	all, err := m.kube.CoreV1().Events(metav1.NamespaceAll).List(context.Background(), metav1.ListOptions{})
	must(m.t, err)
	for _, e := range all.Items {
		if e.Reason == reason {
			out = append(out, e)
		}
	}
	return out
}

func TestLifeOfAnAddress(t *testing.T) {
	m := newMachine(t)
	address := netip.MustParseAddr(vipName)
	stop := m.start()
	eventually(t, "the address is held", func() bool { return m.has(address) })
	eventually(t, "the holder is known", func() bool { return m.vip().Status.Holder != nil })
	h := m.vip().Status.Holder
	if h.Name != "node-1" || h.Interface != "eth0" || h.Epoch != 1 || time.Since(h.Since.Time) > time.Minute {
		t.Errorf("holder %+v", h)
	}
	eventually(t, "there is an event", func() bool { return len(m.events(ReasonNodeAssigned)) == 1 })
	e := m.events(ReasonNodeAssigned)[0]
	if e.InvolvedObject.Kind != "Service" || e.InvolvedObject.Name != "web" || e.InvolvedObject.UID != types.UID("u1") ||
		!strings.Contains(e.Message, "node-1") || !strings.Contains(e.Message, "eth0") {
		t.Errorf("event %+v", e)
	}
	if got := m.get("/metrics"); !strings.Contains(got, "onelb_node_held_addresses 1") ||
		!strings.Contains(got, `onelb_node_takeovers_total{reason="new"} 1`) {
		t.Errorf("metrics: %s", got)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := m.get(path); got != "ok\n" {
			t.Errorf("%s: %q", path, got)
		}
	}

	t.Run("restart without API server", func(t *testing.T) {
		stop()
		refuse := func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, fmt.Errorf("connection refused")
		}
		kube, onelb := m.kube, m.onelb
		m.kube, m.onelb = fake.NewSimpleClientset(), onelbfake.New()
		m.kube.PrependReactor("*", "*", refuse)
		m.onelb.PrependReactor("*", "*", refuse)
		stop = m.start()
		m.renewed(address)
		stop()
		// Even an address that the kernel has dropped is taken from memory.
		must(t, m.ns.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			a, _ := netlink.ParseAddr(vipName + "/32")
			return netlink.AddrDel(l, a)
		}))
		stop = m.start()
		eventually(t, "it is taken again", func() bool { return m.has(address) })
		stop()
		m.kube, m.onelb = kube, onelb
	})

	t.Run("release", func(t *testing.T) {
		stop = m.start()
		eventually(t, "the holder's new epoch is known", func() bool { return m.vip().Status.Holder.Epoch == 2 })
		v := m.vip()
		v.Spec.Services = nil
		_, err := m.onelb.VirtualIPs().Update(t.Context(), v, metav1.UpdateOptions{})
		must(t, err)
		eventually(t, "the release is acknowledged", func() bool { return m.vip().Status.Holder == nil })
		if m.has(address) {
			t.Error("acknowledged, and still there")
		}
	})
}

func (m *machine) get(path string) string {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.ns.DialContext(ctx, network, address)
		},
	}}
	var body string
	eventually(m.t, path, func() bool {
		req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, "http://"+m.o.MetricsAddress+path, nil)
		must(m.t, err)
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		body = string(b)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return body
}

func TestAPIErrorsDoNotStopTheData(t *testing.T) {
	m := newMachine(t)
	failures := 5
	m.onelb.PrependReactor("patch", "virtualips", func(clienttesting.Action) (bool, runtime.Object, error) {
		failures--
		return failures >= 0, nil, fmt.Errorf("etcd is slow today")
	})
	m.start()
	eventually(t, "the address is held", func() bool { return m.has(netip.MustParseAddr(vipName)) })
	eventually(t, "the holder is written in the end", func() bool { return m.vip().Status.Holder != nil })
}

func TestWaitsForTheKey(t *testing.T) {
	m := newMachine(t)
	key, err := os.ReadFile(m.o.GossipKeyFile)
	must(t, err)
	must(t, os.Remove(m.o.GossipKeyFile))
	m.start()
	time.Sleep(time.Second)
	if m.has(netip.MustParseAddr(vipName)) {
		t.Fatal("took an address without knowing the others")
	}
	must(t, os.WriteFile(m.o.GossipKeyFile, key, 0o600))
	eventually(t, "the address is held", func() bool { return m.has(netip.MustParseAddr(vipName)) })
}
