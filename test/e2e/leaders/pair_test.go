package leaders

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/lab/proc"
)

const leaderLease = "cloud-controller-manager"

// replicas are two cloud-controller-managers; the first of them leads.
type replicas struct {
	*kit.World
	leads, waits *proc.Unit
	identity     string // of the leader
}

// newReplicas takes the place of the lab's one cloud-controller-manager until the
// end of the test. Leases are short: a leader that does not renew is replaced
// after three seconds.
func newReplicas(t *testing.T) *replicas {
	t.Helper()
	w := kit.New(t, &setup)
	w.Must(w.CCM().Stop())
	flags := []string{
		"--leader-elect=true", "--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms",
	}
	r := &replicas{World: w, leads: w.NewCCM("ccm-a", 10268, flags...), waits: w.NewCCM("ccm-b", 10278, flags...)}
	a, b := r.leads, r.waits
	labtest.Logs(t, a, b)
	t.Cleanup(func() {
		if err := errors.Join(a.Kill(), b.Kill(), w.CCM().Start()); err != nil {
			t.Error(err)
		}
	})
	// What an earlier pair has left is no leader.
	if l, err := w.Client().CoordinationV1().Leases(lab.SystemNamespace).Get(w.Context(), leaderLease, metav1.GetOptions{}); err == nil {
		r.identity = ptr.Deref(l.Spec.HolderIdentity, "")
	}
	w.Must(r.leads.Start())
	r.elected()
	w.Must(r.waits.Start())
	return r
}

// elected waits until the lease has another holder than before.
func (r *replicas) elected() {
	r.T.Helper()
	before := r.identity
	r.Eventually("another leader", func(ctx context.Context) error {
		l, err := r.Client().CoordinationV1().Leases(lab.SystemNamespace).Get(ctx, leaderLease, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if r.identity = ptr.Deref(l.Spec.HolderIdentity, ""); r.identity == "" || r.identity == before {
			return fmt.Errorf("it is %q", r.identity)
		}
		return nil
	})
}

// took notes that the other one leads now.
func (r *replicas) took() {
	r.T.Helper()
	r.elected()
	r.leads, r.waits = r.waits, r.leads
}

// change is a way to lose a leader. After it the other one leads, and the former
// leader waits in its turn.
type change struct {
	name string
	// late says that the former leader comes back to what it was doing.
	late bool
	do   func(r *replicas)
}

var changes = []change{
	{name: "killed", do: func(r *replicas) {
		r.Must(r.leads.Kill())
		r.took()
		r.Must(r.waits.Start())
	}},
	{name: "ended", do: func(r *replicas) {
		r.Must(r.leads.Stop())
		r.took()
		r.Must(r.waits.Start())
	}},
	{name: "stopped and continued", late: true, do: func(r *replicas) {
		r.Must(r.leads.Signal(syscall.SIGSTOP))
		r.took()
		r.Must(r.waits.Signal(syscall.SIGCONT))
		r.Eventually("the former leader to end", func(context.Context) error {
			if r.waits.Running() {
				return errors.New("it runs")
			}
			return nil
		})
		r.Must(r.waits.Start())
	}},
}
