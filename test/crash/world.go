package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/provider"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/onesim"
)

const (
	clusterName = "crash"
	oneUser     = "k8s"
	onePassword = "k8spass123"
	program     = "opennebula-cloud-controller-manager"
)

// world is everything but the CCM.
type world struct {
	o     Options
	seed  uint64
	dir   string
	plane *plane
	sim   *onesim.Sim
	gate  *Gate
	onelb *client.Clientset
	uid   string // of the cluster
	// open is the network of the pool without reservation; in it strangers have
	// addresses on hold.
	open      int
	strangers map[netip.Addr]bool
	pace      provider.Timing
	more      string // lines at the end of the cloud-config

	running sync.WaitGroup // goroutines of instances
	lives   int
	rng     *rand.Rand
	script  *script
	report  Report

	mu   sync.Mutex // guards seen
	seen map[string]int
}

func newWorld(ctx context.Context, o Options, seed uint64) (w *world, err error) {
	dir, err := os.MkdirTemp("", "onelb-crash-")
	if err != nil {
		return nil, err
	}
	w = &world{
		o: o, seed: seed, dir: dir, pace: timing, seen: map[string]int{}, rng: rand.New(rand.NewPCG(seed, 0)),
		report: Report{Seeds: []uint64{seed}, Hits: map[Point]int{}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.plane, err = startPlane(ctx, dir, o.Progress); err != nil {
		return w, err
	}
	if o.Processes > 0 {
		if err := kubebin.Programs(ctx, filepath.Join(dir, "bin"), false, o.Progress, "cmd/"+program); err != nil {
			return w, err
		}
	}
	if err := w.newSim(); err != nil {
		return w, err
	}
	if w.gate, err = newGate(w.plane.url, adminToken, w.sim.Handler(), w.saw); err != nil {
		return w, err
	}
	if w.onelb, err = client.New(w.plane.config()); err != nil {
		return w, err
	}
	ns, err := w.plane.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return w, err
	}
	w.uid = string(ns.UID)
	w.script = newScript(w)
	return w, writeFiles(map[string]string{filepath.Join(dir, "one_auth"): oneUser + ":" + onePassword + "\n"})
}

// newSim makes OpenNebula: one network with ranges of each family, one with pairs,
// and one of our own, since holds in it need MANAGE, in which others hold addresses too.
func (w *world) newSim() (err error) {
	if w.sim, err = onesim.New(onesim.Options{Delays: onesim.MeasuredDelays}); err != nil {
		return err
	}
	_, err1 := w.sim.AddUser(oneUser, onePassword, "")
	_, err2 := w.sim.AddVNet("", `NAME="public"
VN_MAD="dummy"
BRIDGE="br-public"
AR=[TYPE="IP4",IP="203.0.113.0",SIZE="200"]
AR=[TYPE="IP6_STATIC",IP6="2001:db8:113::100",PREFIX_LENGTH="64",SIZE="200"]
`)
	_, err3 := w.sim.AddVNet("", `NAME="private"
VN_MAD="dummy"
BRIDGE="br-private"
AR=[TYPE="IP4_6_STATIC",IP="10.20.0.0",IP6="fd00:20::100",PREFIX_LENGTH="64",SIZE="200"]
`)
	w.open, err = w.sim.AddVNet(oneUser, `NAME="open"
VN_MAD="dummy"
BRIDGE="br-open"
AR=[TYPE="IP4",IP="198.51.100.0",SIZE="100"]
AR=[TYPE="IP6_STATIC",IP6="2001:db8:51::100",PREFIX_LENGTH="64",SIZE="100"]
`)
	if err := errors.Join(err1, err2, err3, err); err != nil {
		return err
	}
	w.strangers = map[netip.Addr]bool{}
	for _, text := range []string{"198.51.100.2", "198.51.100.5", "198.51.100.6", "2001:db8:51::102", "2001:db8:51::107"} {
		a := netip.MustParseAddr(text)
		w.strangers[a] = true
		if err := w.sim.Hold(w.open, a); err != nil {
			return err
		}
	}
	return nil
}

// saw counts a call.
func (w *world) saw(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[kind]++
}

func (w *world) say(format string, args ...any) {
	_, _ = fmt.Fprintf(w.o.Progress, format+"\n", args...)
}

// close ends everything. Instances have been ended before.
func (w *world) close() error {
	var errs []error
	ended := make(chan struct{})
	go func() { w.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		errs = append(errs, errors.New("an instance does not end"))
	}
	if w.gate != nil {
		errs = append(errs, w.gate.close())
	}
	if w.plane != nil {
		errs = append(errs, w.plane.close())
	}
	if w.o.KeepDir {
		w.say("logs are in %s", w.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

func writeFiles(files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
