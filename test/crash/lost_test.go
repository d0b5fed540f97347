package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/provider/adopt"
	"github.com/onelb/onelb/provider/one"
)

// lostWait is generous: what is tested is that it comes to pass.
const lostWait = 2 * time.Minute

// lost is a cluster whose etcd will be lost, or one that was built after that.
type lost struct {
	*world
	t *testing.T
}

// newLost makes a cluster with an etcd of its own. from: the cluster that was
// lost; OpenNebula is the same.
func newLost(t *testing.T, from *lost) *lost {
	t.Helper()
	w, err := newWorld(t.Context(), Options{Progress: os.Stderr}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	w.pace = timing
	w.pace.FormerGrace, w.pace.OrphanGrace = 10*time.Minute, 10*time.Minute
	l := &lost{world: w, t: t}
	if from != nil {
		l.must(w.gate.close())
		w.sim = from.sim
		w.gate, err = newGate(w.plane.url, adminToken, w.sim.Handler(), w.saw)
		l.must(err)
	}
	return l
}

func (l *lost) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lost) until(what string, f func(context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), lostWait)
	defer cancel()
	l.must(poll(ctx, 50*time.Millisecond, what, f))
}

// start starts the CCM with lines in its cloud-config.
func (l *lost) start(more string) (stop func()) {
	l.t.Helper()
	l.more = more
	i, err := l.startInstance(nil)
	l.must(err)
	l.t.Cleanup(i.end)
	return i.end
}

func (l *lost) identityFile(identity string) string {
	l.t.Helper()
	file := filepath.Join(l.dir, "identity")
	l.must(os.WriteFile(file, []byte(identity+"\n"), 0o600))
	return "identityFile: " + file + "\n"
}

// pools are those of the manifests, and so the same in each cluster.
func (l *lost) pools() {
	l.t.Helper()
	ctx := l.t.Context()
	l.must(l.script.makePool(ctx, "main", "public", true, nil))
	l.must(l.script.makePool(ctx, "side", "private", false, nil))
}

// services are 20 of the manifests: single and dual stack, in two pools, three
// that share an address, one that names its address.
func services() []*corev1.Service {
	var out []*corev1.Service
	add := func(annotations map[string]string, port int32, policy corev1.IPFamilyPolicy, families ...corev1.IPFamily) {
		out = append(out, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%02d", len(out)), Annotations: annotations},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, IPFamilyPolicy: new(policy), IPFamilies: families,
				Ports: []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}},
			},
		})
	}
	for i := range 4 {
		add(nil, 80, corev1.IPFamilyPolicySingleStack, corev1.IPv4Protocol)
		add(nil, 80, corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol)
		add(nil, 80, corev1.IPFamilyPolicyRequireDualStack)
		add(map[string]string{annotation.Pool.Name: "side"}, 80, corev1.IPFamilyPolicyRequireDualStack)
		if i < 3 {
			add(map[string]string{annotation.Share.Name: "front"}, 8000+int32(i), corev1.IPFamilyPolicySingleStack, corev1.IPv4Protocol)
		}
	}
	add(map[string]string{annotation.Address.Name: "203.0.113.150", annotation.Retain.Name: "24h"}, 80, corev1.IPFamilyPolicySingleStack, corev1.IPv4Protocol)
	return out
}

func (l *lost) create(list ...*corev1.Service) {
	l.t.Helper()
	for _, s := range list {
		_, err := l.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Create(l.t.Context(), s, metav1.CreateOptions{})
		l.must(err)
	}
}

// addresses waits until each Service has all that it wants, and returns it.
func (l *lost) addresses() map[string]string {
	l.t.Helper()
	out := map[string]string{}
	l.until("addresses of all Services", func(ctx context.Context) error {
		all, err := l.plane.kube.CoreV1().Services(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range all.Items {
			s := &all.Items[i]
			if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
				continue
			}
			a := addressesOf(s)
			if len(a) < len(s.Spec.IPFamilies) {
				return fmt.Errorf("%s has %v", s.Name, a)
			}
			slices.SortFunc(a, netip.Addr.Compare)
			out[s.Name] = fmt.Sprint(a)
		}
		return nil
	})
	return out
}

func (l *lost) one() *one.Client {
	l.t.Helper()
	c, err := one.New(one.Options{Endpoint: l.gate.url + "/test/RPC2", Credentials: one.CredentialFile(filepath.Join(l.dir, "one_auth"))})
	l.must(err)
	l.gate.admit("test")
	return c
}

// recorded waits until OpenNebula has n owners on record.
func (l *lost) recorded(n int) {
	l.t.Helper()
	c := l.one()
	l.until(fmt.Sprintf("%d owners in OpenNebula", n), func(ctx context.Context) error {
		own, err := c.OwnNetworks(ctx)
		if err != nil {
			return err
		}
		have := 0
		for _, o := range own {
			net, err := c.Get(ctx, o.ID)
			if err != nil {
				return err
			}
			for _, r := range net.Ranges {
				for _, t := range ipam.ParseTitles(r.Attributes[ipam.AttributeOwners]) {
					have += len(t.Owners)
				}
			}
		}
		if have != n {
			return fmt.Errorf("there are %d", have)
		}
		return nil
	})
}

func (l *lost) poolReason(name string) (reason string, err error) {
	p, err := l.onelb.AddressPools().Get(l.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if c := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.PoolReady); c != nil {
		return c.Reason, nil
	}
	return "", nil
}

// comesBack creates strangers, then the Services in another order, and compares.
func (l *lost) comesBack(had map[string]string, more ...*corev1.Service) {
	l.t.Helper()
	for i := range 6 {
		s := services()[2]
		s.Name = fmt.Sprintf("new%d", i)
		l.create(s)
	}
	back := append(services(), more...)
	slices.Reverse(back)
	l.create(back...)
	have := l.addresses()
	taken := map[string]string{}
	for name, a := range have {
		if had[name] != "" && had[name] != a {
			l.t.Errorf("%s has %s, had %s", name, a, had[name])
		}
		if other, twice := taken[a]; twice && had[name] != had[other] {
			l.t.Errorf("%s and %s both have %s", name, other, a)
		}
		taken[a] = name
	}
	for name := range had {
		if have[name] == "" {
			l.t.Errorf("%s has no address", name)
		}
	}
}

// TestEtcdLost: a cluster with an etcd of its own gives the same Services the
// same addresses, if it has the identity of the lost one or has adopted its
// reservations; else it gets nothing of them.
func TestEtcdLost(t *testing.T) {
	first := newLost(t, nil)
	stop := first.start("")
	first.pools()
	first.create(services()...)
	had := first.addresses()
	retained := services()[19]
	retained.Name, retained.Annotations = "kept", map[string]string{annotation.Retain.Name: "24h"}
	first.create(retained)
	maps.Copy(had, first.addresses())
	first.must(first.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), "kept", metav1.DeleteOptions{}))
	// 20 Services, eight of them with two addresses, and the one that is gone.
	first.recorded(20 + 8 + 1)
	first.until("the kept address to be kept", func(ctx context.Context) error {
		all, err := first.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
		if err != nil || !slices.ContainsFunc(all.Items, func(v v1alpha1.VirtualIP) bool { return v.Spec.Retain != nil }) {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	time.Sleep(2 * first.pace.OwnersDelay)
	first.recorded(20 + 8 + 1)
	stop()

	// The manifests, with the identity of before.
	second := newLost(t, first)
	stop = second.start(second.identityFile(first.uid))
	second.pools()
	again := retained.DeepCopy()
	second.comesBack(had, again)
	second.recorded(21 + 8 + 6*2)
	stop()

	// A cluster of that name with another identity.
	third := newLost(t, second)
	stop = third.start("")
	third.pools()
	for _, p := range []string{"main", "side"} {
		third.until("pool "+p+" to be refused", func(context.Context) error {
			if reason, err := third.poolReason(p); err != nil || reason != ipam.ReasonForeignReservation {
				return fmt.Errorf("%q: %w", reason, errors.Join(err, errors.New("not refused")))
			}
			return nil
		})
	}
	client := third.one()
	plan, err := adopt.New(t.Context(), client, clusterName, third.uid)
	if !errors.Is(err, adopt.ErrAlive) || len(plan.Steps) != 2 {
		t.Errorf("%d steps, %v: want a refusal, the other one lived a moment ago", len(plan.Steps), err)
	}
	for _, s := range plan.Steps { // as if a while had passed
		long := time.Now().Add(-2 * adopt.Silence).UTC().Format(time.RFC3339)
		third.must(client.Annotate(t.Context(), s.ID, map[string]string{ipam.AttributeAlive: long}))
	}
	plan, err = adopt.New(t.Context(), client, clusterName, third.uid)
	third.must(err)
	third.must(plan.Apply(t.Context(), client))
	third.comesBack(had, retained.DeepCopy())
	stop()
}
