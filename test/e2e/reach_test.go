package e2e_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestWrongCredentials changes the password in OpenNebula, and then in the file.
func TestWrongCredentials(t *testing.T) {
	w := newWorld(t)
	write := func(text string) {
		tmp := w.Credentials() + ".new"
		w.Must(os.WriteFile(tmp, []byte(text), 0o600))
		w.Must(os.Rename(tmp, w.Credentials()))
	}
	w.serve(web, "known", "lan")
	const rotated = "Pa55-of-tomorrow"
	w.Must(w.OneSim().SetPassword(lab.OneUser, rotated))
	t.Cleanup(func() {
		w.Must(w.OneSim().SetPassword(lab.OneUser, lab.OnePassword))
		write(lab.OneUser + ":" + lab.OnePassword + "\n")
	})
	w.withoutOpenNebula("wrong", "Unauthenticated", "user and password")
	write(lab.OneUser + ":" + rotated + "\n")
	w.withOpenNebula("wrong", "known")
	log, err := w.CCM().Log()
	w.Must(err)
	for _, secret := range []string{lab.OnePassword, rotated} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has the password %q", secret)
		}
	}
}

// TestUnreachable stops OpenNebula's front-end.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	w.serve(web, "known", "lan")
	w.Must(w.StopOneSim())
	stopped := true
	t.Cleanup(func() {
		if stopped {
			w.Must(w.StartOneSim())
		}
	})
	w.withoutOpenNebula("stopped", "Unavailable", lab.OneSimURL())
	w.Must(w.StartOneSim())
	stopped = false
	w.withOpenNebula("stopped", "known")
}

// withoutOpenNebula checks what goes on while OpenNebula cannot be used: Services of
// known pools get addresses, and a new pool says what is wrong, once.
func (w *world) withoutOpenNebula(name, reason string, words ...string) {
	w.T.Helper()
	late, waits := name+"-late", name+"-waits" // not the same again: events stay
	w.Pool(late, "network: {name: private}, ranges: [{start: 10.20.0.190, end: 10.20.0.191}], exposure: L2, quarantine: 1s")
	w.Create(web, waits, kit.InPool(late), families(corev1.IPv4Protocol))
	for _, pool := range []string{"lan", "internet"} {
		w.serve(web, "meanwhile-"+pool, pool)
	}
	c := w.PoolIs(late, metav1.ConditionFalse, reason)
	w.mentions(c.Message, words...)
	w.warned("AddressPool", late, "PoolNotReady", words...)
	w.warned("AddressPool", "lan", "OpenNebulaUnavailable", "addresses that are reserved ahead are still given")
	w.warned("Service", waits, "AllocationFailed", append(words, "AddressPool "+late)...)
	w.OneSim().ResetCalls()
	begin := time.Now()
	time.Sleep(8 * time.Second)
	calls := 0
	for _, n := range w.OneSim().Calls() {
		calls += n
	}
	// Five pools, each at most every few seconds, and the node controllers.
	if most := 10 * int(time.Since(begin).Seconds()); calls > most {
		w.T.Errorf("%d calls in %s: %v", calls, time.Since(begin), w.OneSim().Calls())
	}
	w.warnedOnce("AddressPool", late)
	w.warnedOnce("Service", waits)
	w.Pending(waits)
	w.allNodes()
}

// withOpenNebula checks that all comes right, and takes the Services away.
func (w *world) withOpenNebula(name, more string) {
	w.T.Helper()
	late, waits := name+"-late", name+"-waits"
	w.PoolIs(late, metav1.ConditionTrue, "Reserved")
	w.waitServed(waits)
	w.waitServed(more)
	w.NothingLeft()
	w.Remove(waits, more, "meanwhile-lan", "meanwhile-internet")
	w.NothingLeft()
}

// allNodes fails the test unless every node is still there: an OpenNebula that
// cannot be asked is no proof that a VM is gone.
func (w *world) allNodes() {
	w.T.Helper()
	nodes, err := w.Client().CoreV1().Nodes().List(w.Context(), metav1.ListOptions{})
	w.Must(err)
	if len(nodes.Items) != len(w.Nodes()) {
		w.T.Errorf("%d nodes are left of %d", len(nodes.Items), len(w.Nodes()))
	}
}

// TestRouterRefusesCertificate gives the cloud-controller-manager a certificate of an
// authority that the router does not know.
func TestRouterRefusesCertificate(t *testing.T) {
	w := newWorld(t)
	addrs := w.serve(web, "before", "internet")
	dir, other := filepath.Join(w.Dir(), "router-pki"), t.TempDir()
	out, err := run(w.Context(), w.Program("onelbctl"), "router", "bootstrap", "--router", lab.RouterName, "--cluster", lab.ClusterName, "--out", other)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	right := map[string][]byte{}
	for _, file := range []string{"client.crt", "client.key"} {
		right[file], err = os.ReadFile(filepath.Join(dir, file))
		w.Must(err)
	}
	restore := func() {
		for file, content := range right {
			w.Must(os.WriteFile(filepath.Join(dir, file), content, 0o600))
		}
	}
	t.Cleanup(restore)
	for file := range right {
		wrong, err := os.ReadFile(filepath.Join(other, file))
		w.Must(err)
		w.Must(os.WriteFile(filepath.Join(dir, file), wrong, 0o600))
	}
	w.Must(w.Router(1).Agent().Restart()) // the connection that stands was made with the right one
	time.Sleep(5 * time.Second)           // what is seen from here on is the refusal, not the restart

	w.Create(web, "refused", kit.InPool("internet"))
	w.warned("Service", "refused", "AllocationFailed", "router edge", "10.30.0.11:9443", filepath.Join(dir, "client.crt"), "--tls-client-ca", "onelbctl router bootstrap")
	time.Sleep(11 * time.Second)
	w.warnedOnce("Service", "refused")
	w.sanePace("refused", 5)
	w.Pending("refused")
	w.waitAnswers("before", addrs)

	restore()
	w.waitServed("refused")
	w.waitAnswers("before", addrs)
	w.Remove("before", "refused")
	w.NothingLeft()
}

var errNoExit = errors.New("did not end by itself")
