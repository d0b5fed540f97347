package services

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab/proc"
)

// TestClass: ours is served, another's is left alone.
func TestClass(t *testing.T) {
	w := newWorld(t)
	w.Create(web, "class-ours", kit.Class("onelb.io/lb"), kit.InPool("lan"))
	w.Create(web, "class-public", kit.Class("onelb.io/lb"), kit.InPool("internet"))
	w.Create(web, "class-other", kit.Class("example.com/lb"), kit.InPool("lan"))
	had := w.Served(web, "class-ours")
	w.Served(web, "class-public")
	w.Said("Service", "class-ours", "IPAllocated", had[0].String())
	w.leftAlone("class-other")

	t.Log("moved to another pool, refused, and put right")
	w.Update("class-ours", kit.InPool("inner"))
	w.Eventually("addresses of the other pool", otherThan(w, "class-ours", had))
	w.Served(web, "class-ours")
	w.Update("class-ours", kit.Annotate("pol", "inner"))
	w.Said("Service", "class-ours", "Refused", "onelb.io/pol")
	w.Update("class-ours", kit.Annotate("pol", ""))
	w.Served(web, "class-ours")
	w.Remove("class-ours", "class-public", "class-other")
	w.NothingLeft()
}

// leftAlone fails the test unless a Service has nothing of ours.
func (w world) leftAlone(name string) {
	w.T.Helper()
	svc := w.Get(name)
	if len(svc.Status.LoadBalancer.Ingress) > 0 {
		w.T.Errorf("%s has %v", name, svc.Status.LoadBalancer.Ingress)
	}
	if all, err := w.Events(w.Context(), "Service", name); err != nil || len(all) > 0 {
		w.T.Errorf("%s: events %q, %v", name, all, err)
	}
	if len(svc.Finalizers) > 0 && svc.Spec.LoadBalancerClass != nil {
		w.T.Errorf("%s has finalizers %v", name, svc.Finalizers)
	}
}

// TestNotDefault runs the cloud-controller-manager with --default-class=false: who
// has an address keeps it, new Services without a class get none.
func TestNotDefault(t *testing.T) {
	w := newWorld(t)
	w.Create(web, "default-old", kit.V4)
	old := w.Served(web, "default-old")
	w.Must(w.CCM().Stop())
	other := w.NewCCM("ccm-not-default", 10268, "--default-class=false")
	w.Must(other.Start())
	t.Cleanup(func() {
		if err := errors.Join(other.Stop(), w.CCM().Start()); err != nil {
			t.Error(err)
		}
	})
	w.Create(web, "default-none", kit.V4)
	w.Create(web, "default-class", kit.V4, kit.Class("onelb.io/lb"))
	w.Served(web, "default-class") // later than it, the others would have been served too
	w.Stays("no address without class", 2*time.Second, func() error {
		if got := kit.Shown(w.Get("default-none")); len(got) > 0 {
			return errors.New("it has one")
		}
		return nil
	})
	w.leftAlone("default-none")
	w.Shows("default-old", old...)
	w.Answers(web, "default-old", old...)
	w.Remove("default-old", "default-none")
	w.Silent(old[0], kit.Port)
	w.Remove("default-class")
	w.NothingLeft()
	w.running(other)
}

func (w world) running(u *proc.Unit) {
	w.T.Helper()
	w.Eventually(u.Name()+" to run", func(context.Context) error {
		if !u.Running() {
			return u.Err()
		}
		return nil
	})
}
