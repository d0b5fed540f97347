package trouble

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/onesim"
)

// trouble is a way in which OpenNebula does not do its work.
type trouble struct {
	name string
	// lasts is its least time: back-offs grow meanwhile.
	lasts time.Duration
	// reason and words are what pools say of it; empty: it is slow, but works.
	reason string
	words  []string
	begin  func(w world) (end func() error)
}

func injected(f onesim.Fault) func(w world) func() error {
	return func(w world) func() error {
		w.Must(w.OneSim().Inject(f))
		return func() error { w.OneSim().ClearFaults(); return nil }
	}
}

var troubles = []trouble{
	{
		name: "hanging", lasts: 12 * time.Second, reason: "Unavailable", words: []string{"no answer in time"},
		begin: injected(onesim.Fault{Kind: onesim.FaultHang}),
	},
	{
		name: "slow", lasts: 10 * time.Second,
		begin: injected(onesim.Fault{Kind: onesim.FaultDelay, Delay: 2 * time.Second}),
	},
	{
		name: "HTTP 500", lasts: 5 * time.Second, reason: "Unavailable", words: []string{"HTTP status 500"},
		begin: injected(onesim.Fault{Kind: onesim.FaultHTTP500}),
	},
	{
		name: "malformed", lasts: 5 * time.Second, reason: "Unavailable", words: []string{"no OpenNebula XML-RPC endpoint"},
		begin: injected(onesim.Fault{Kind: onesim.FaultMalformed}),
	},
	{
		name: "wrong credentials", lasts: 5 * time.Second, reason: "Unauthenticated", words: []string{"check user and password"},
		begin: func(w world) func() error {
			w.Must(w.OneSim().SetPassword(lab.OneUser, "another"))
			return func() error { return w.OneSim().SetPassword(lab.OneUser, lab.OnePassword) }
		},
	},
	{
		name: "out of connections", lasts: 12 * time.Second, reason: "Unavailable", words: []string{"no answer in time", "out of connections"},
		begin: func(w world) func() error {
			end := w.crowd()
			return func() error { end(); return nil }
		},
	},
	{
		name: "away for long", lasts: 60 * time.Second, reason: "Unavailable", words: []string{"connection refused"},
		begin: func(w world) func() error {
			w.Must(w.StopOneSim())
			return w.StartOneSim
		},
	},
}

// catchUp bounds what comes after a trouble: the longest back-off (36 s), a call
// that has just begun (10 s), the work itself, and a busy machine.
const catchUp = 90 * time.Second

// TestOpenNebula: Services are untouched, new ones get what is reserved ahead, no
// Node goes, pools say what is wrong, and everything is caught up afterwards.
func TestOpenNebula(t *testing.T) {
	w := world{kit.New(t, &setup)}
	w.Create(kit.Web, "calm-lan", kit.InPool("lan"))
	w.Create(kit.Web, "calm-internet", kit.InPool("internet"))
	calm := append(w.Served(kit.Web, "calm-lan"), w.Served(kit.Web, "calm-internet")...)
	w.NothingLeft()
	nodes := w.nodes()
	for i, x := range troubles {
		t.Run(x.name, func(t *testing.T) {
			w := world{kit.New(t, &setup)}
			k := w.knock(calm...)
			names := []string{fmt.Sprintf("during-lan-%d", i), fmt.Sprintf("during-internet-%d", i), fmt.Sprintf("goes-%d", i)}
			w.Create(kit.Web, names[2], kit.InPool("lan"))
			w.Served(kit.Web, names[2])
			w.NothingLeft()
			begin := time.Now()
			end := x.begin(w)
			t.Cleanup(func() {
				if end != nil {
					_ = end()
				}
			})
			for _, name := range names[:2] {
				w.Create(kit.Web, name, kit.InPool(strings.Split(name, "-")[1]))
			}
			for _, name := range names[:2] {
				w.Served(kit.Web, name)
			}
			w.Remove(names[2])
			if x.reason != "" {
				c := w.PoolIs("lan", metav1.ConditionTrue, x.reason)
				for _, word := range x.words {
					if !strings.Contains(c.Message, word) {
						t.Errorf("the pool says %q, which lacks %q", c.Message, word)
					}
				}
				w.Said("AddressPool", "internet", "OpenNebulaUnavailable", append(x.words, "reserved ahead")...)
			}
			time.Sleep(x.lasts - time.Since(begin))
			w.Must(end())
			end = nil
			begin = time.Now()
			w.caughtUp(names[:2])
			t.Logf("caught up %s after the end", time.Since(begin).Round(time.Millisecond))
			k.undisturbed(t)
			if now := w.nodes(); !maps.Equal(now, nodes) {
				t.Errorf("nodes were %v, are %v", nodes, now)
			}
			w.Remove(names[:2]...)
			w.NothingLeft()
		})
	}
	w.Remove("calm-lan", "calm-internet")
	w.NothingLeft()
}

// caughtUp waits until the pools are well and every address is on hold, and only
// those in use.
func (w world) caughtUp(names []string) {
	w.T.Helper()
	w.Every(100*time.Millisecond, catchUp, "pools to be well", func(ctx context.Context) error {
		for _, name := range []string{"lan", "internet"} {
			p, err := w.OneLB.AddressPools().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, c := range p.Status.Conditions {
				if c.Type == v1alpha1.PoolReady && c.Reason != "Reserved" {
					return fmt.Errorf("%s is %s: %s", name, c.Reason, c.Message)
				}
			}
		}
		return nil
	})
	w.NothingLeft()
	for _, name := range names {
		w.Served(kit.Web, name)
	}
}
