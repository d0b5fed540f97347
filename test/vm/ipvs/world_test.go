package ipvs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/vm"
)

const (
	// patience is the longest wait for an end state. Emulated processors are slow.
	patience = 10 * time.Minute
	// questions is how often the wire is asked before an answer counts as settled, and
	// answerWithin how long each time.
	questions    = 15
	answerWithin = time.Second

	namespace, name, port = "default", "held", 8765
	// ipvsInterface is kube-proxy's.
	ipvsInterface = "kube-ipvs0"

	pool = `
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata:
  name: lan
spec:
  network: {name: private}
  ranges:
  - {start: 10.20.0.100, end: 10.20.0.199}
  - {start: "fd00:20::100", end: "fd00:20::163"}
  exposure: L2
  quarantine: 1s
`
)

var web = lab.Workload{Name: "web", Replicas: 3}

// world is the lab with one dual-stack Service, an address of each family.
type world struct {
	*lab.Lab
	t     *testing.T
	addrs []netip.Addr
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if !vm.Inside() {
		t.Skip("this is for the virtual machine, see TestInMachine")
	}
	w := &world{Lab: labtest.Shared(t), t: t}
	labtest.Logs(t, w.CCM(), w.Agent(1), w.Agent(2), w.Agent(3), w.Nodes()[0].Proxy())
	ctx := t.Context()
	w.must(w.WaitReady(ctx))
	file := filepath.Join(w.Dir(), "pool.yaml")
	w.must(os.WriteFile(file, []byte(pool), 0o600))
	_, err := w.Kubectl(ctx, "apply", "-f", file)
	w.must(err)
	_, err = w.StartWorkload(ctx, web)
	w.must(err)
	svc := web.Service(name, corev1.ServiceTypeLoadBalancer)
	_, err = w.CreateService(ctx, svc)
	w.must(err)
	w.eventually("the Service has two addresses", func(ctx context.Context) (err error) {
		if w.addrs, err = w.WaitAddress(ctx, namespace, name); err == nil && len(w.addrs) != 2 {
			err = fmt.Errorf("they are %v", w.addrs)
		}
		return err
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually waits until f returns nil, and says how long that took.
func (w *world) eventually(what string, f func(ctx context.Context) error) {
	w.t.Helper()
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		err := f(ctx)
		cancel()
		took := time.Since(began).Round(100 * time.Millisecond)
		if err == nil {
			w.t.Logf("after %s: %s", took, what)
			return
		}
		if took > patience {
			w.t.Fatalf("not in %s: %s: %v", took, what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// interfaces are the names of a node's interfaces that have an address, sorted.
func interfaces(n *lab.Node, a netip.Addr) ([]string, error) {
	nl, err := n.Netlink()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	links, err := nl.LinkList()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, link := range links {
		all, err := nl.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, err
		}
		for _, x := range all {
			if got, ok := netip.AddrFromSlice(x.IP); ok && got.Unmap() == a {
				out = append(out, link.Attrs().Name)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// onlyHolder is the node that has the address on its own interface. All that are
// alive must have it on kube-proxy's.
func (w *world) onlyHolder(a netip.Addr, dead ...*lab.Node) (holder *lab.Node, err error) {
	for _, n := range w.Nodes() {
		if slices.Contains(dead, n) {
			continue
		}
		on, err := interfaces(n, a)
		if err != nil {
			return nil, err
		}
		switch {
		case slices.Equal(on, []string{ipvsInterface}):
		case slices.Equal(on, []string{"eth0", ipvsInterface}) && holder == nil:
			holder = n
		default:
			return nil, fmt.Errorf("%s has %s on %q, holder so far %v", n.ShortName(), a, on, holder != nil)
		}
	}
	if holder == nil {
		return nil, fmt.Errorf("nobody holds %s", a)
	}
	return holder, nil
}

// answerers are the hardware addresses that answer the LAN's client, and how many of
// the questions each has answered.
func (w *world) answerers(ctx context.Context, a netip.Addr, questions int) (map[string]int, error) {
	out := map[string]int{}
	for range questions {
		one, cancel := context.WithTimeout(ctx, answerWithin)
		found, err := w.LAN().WhoHas(one, lab.Private, a)
		cancel()
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			out[r.MAC.String()]++
		}
	}
	return out, nil
}

// alone waits until one node holds the address and it alone answers, all questions
// over a while. It must not be one of those that are named.
func (w *world) alone(what string, a netip.Addr, not ...*lab.Node) (holder *lab.Node) {
	w.t.Helper()
	w.eventually(what, func(ctx context.Context) (err error) {
		if holder, err = w.onlyHolder(a, not...); err != nil {
			return err
		}
		got, err := w.answerers(ctx, a, questions)
		if err != nil {
			return err
		}
		if want := map[string]int{mac(holder): questions}; !maps.Equal(got, want) {
			return fmt.Errorf("%s is answered for by %v, want %v, of %s", a, got, want, holder.ShortName())
		}
		return nil
	})
	w.t.Logf("%s: %s (%s) holds it and answered %d questions, nobody else any", a, holder.ShortName(), mac(holder), questions)
	return holder
}

func mac(n *lab.Node) string { return n.Link(lab.Private).MAC().String() }

// served waits until each pod has answered at the address over TCP, and one over UDP.
func (w *world) served(a netip.Addr) {
	w.t.Helper()
	pods := map[string]bool{}
	w.eventually(fmt.Sprintf("all pods answer at %s", a), func(ctx context.Context) error {
		got, err := w.LAN().HTTPGet(ctx, a, port)
		if err != nil {
			return err
		}
		if pods[got.Pod] = true; len(pods) < web.Replicas {
			return fmt.Errorf("so far %d", len(pods))
		}
		_, err = w.LAN().UDP(ctx, a, port)
		return err
	})
}

// inNode reads a file of /proc as a process on the node would.
func (w *world) inNode(n *lab.Node, path string) string {
	w.t.Helper()
	var content []byte
	w.must(n.Do(func() (err error) {
		content, err = os.ReadFile(path)
		return err
	}))
	return string(content)
}

// settings are the node's network settings that decide who answers for what.
func (w *world) settings(n *lab.Node) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	w.must(n.Do(func() error {
		for _, root := range []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				if err == nil {
					out[path] = strings.TrimSpace(string(content))
				} else if !errors.Is(err, fs.ErrPermission) && !strings.HasSuffix(path, "stable_secret") {
					return err // that one cannot be read before it is written
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return out
}

// defaults fails the test if a setting that keeps a kernel from answering is not at
// the kernel's default on an interface of a node.
func (w *world) defaults() {
	w.t.Helper()
	for _, n := range w.Nodes() {
		seen := 0
		for path, value := range w.settings(n) {
			switch filepath.Base(path) {
			case "arp_ignore", "arp_announce", "arp_filter", "proxy_arp", "proxy_ndp":
				if seen++; value != "0" {
					w.t.Errorf("%s: %s is %s", n.ShortName(), path, value)
				}
			}
		}
		if seen < 5*4 { // all, default, lo, eth0 at least
			w.t.Errorf("%s: only %d settings were found", n.ShortName(), seen)
		}
	}
}
