package ipam

import (
	"testing"
	"testing/synctest"
	"time"
)

// estate is an OpenNebula with reservations that a pool wants, that none wants,
// and that are not ours.
func estate(t *testing.T) (c *cloud, ids map[string]NetworkID) {
	t.Helper()
	c = newCloud()
	parent := c.network("public", range4("10.0.0.1", 200))
	ids = map[string]NetworkID{}
	for _, r := range []struct {
		name, user, uid, pool string
	}{
		{"c-late", "k8s", "", ""},
		{"c-gone", "k8s", "uid", "gone"},
		{"c-busy", "k8s", "uid", "busy"},
		{"c-theirs", "k8s", "other", "theirs"},
		{"c-renamed", "k8s", "uid", "pub"},
		{"d-late", "k8s", "", ""},
		{"c", "k8s", "", ""},
		{"c-late2", "somebody", "", ""},
		{"c-lb", "k8s", "", ""}, // of OpenNebula's own cloud-controller-manager
	} {
		id, err := c.reserve(r.user, ReserveRequest{Parent: parent, Name: r.name, Into: NoNetwork, Size: 4})
		if err != nil {
			t.Fatal(err)
		}
		ids[r.name] = id
		if r.uid != "" {
			c.nets[id].Attributes[AttributeClusterUID], c.nets[id].Attributes[AttributePool] = r.uid, r.pool
		}
	}
	c.nets[ids["c-lb"]].ranges[0].Attributes = map[string]string{AttributeOfficialService: "c-default-web"}
	c.set(ids["c-lb"], c.nets[ids["c-lb"]].ranges[0].First4, hold)
	c.set(ids["c-gone"], c.nets[ids["c-gone"]].ranges[0].First4, hold)
	c.set(ids["c-busy"], c.nets[ids["c-busy"]].ranges[0].First4, "VM 9")
	return c, ids
}

func TestReservationsThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := estate(t)
		p := start(t, c, newStore(), nil)
		defer p.stop()
		time.Sleep(time.Hour) // the pools are not known yet: nothing is unwanted
		if n := c.count("DeleteReservation"); n > 0 || p.countEvents(EventOrphanReservation) > 0 {
			t.Errorf("%d deletions before the pools are known, %v", n, p.reasons())
		}
		p.SetPools([]PoolSpec{basePool("pub")})
		time.Sleep(9 * time.Minute)
		if c.find("k8s", "c-late") == nil {
			t.Error("given back before the grace time was over")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for name, left := range map[string]bool{
			"c-late": false, "c-gone": false, "c-busy": true, "c-theirs": true, "c-renamed": true, "d-late": true, "c": true, "c-pub": true, "c-lb": true,
		} {
			if (c.find("k8s", name) != nil) != left {
				t.Errorf("%s: there %v, want %v", name, !left, left)
			}
		}
		if c.find("somebody", "c-late2") == nil {
			t.Error("another user's reservation is gone")
		}
		if n := p.countEvents(EventOrphanReservation); n != 3 {
			t.Errorf("%d events, want those of late, gone and busy: %v", n, p.reasons())
		}
		if id := c.find("k8s", "c-lb").ID; c.use(id, c.nets[id].ranges[0].First4) != hold {
			t.Error("an address of another cloud-controller-manager is given back")
		}
		lb := basePool("lb")
		p.SetPools([]PoolSpec{basePool("pub"), lb}) // by somebody who has not moved it yet
		time.Sleep(time.Minute)
		if st, _ := p.PoolStatus("lb"); st.Reason != ReasonForeignReservation {
			t.Errorf("%+v", st)
		}
		p.wantEvent(EventOrphanReleased)
		if e := p.Estate(); e.Adopted != 3 {
			t.Errorf("%+v", e)
		}
		p.mustBeReady("pub")
	})
}

func TestOrphansAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ids := estate(t)
		p := start(t, c, newStore(), func(o *Options, _ *process) { o.ReportOrphans = true })
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		n := c.find("k8s", "c-pub")
		c.set(n.ID, n.ranges[0].First4, hold)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if c.use(n.ID, n.ranges[0].First4) != hold || c.find("k8s", "c-late") == nil || c.use(ids["c-gone"], c.nets[ids["c-gone"]].ranges[0].First4) != hold {
			t.Error("something was given back")
		}
		if p.countEvents(EventOrphanReservation) != 3 || p.countEvents(EventOrphanFound) != 1 || p.countEvents(EventOrphanReleased) != 0 {
			t.Error(p.reasons())
		}
		if e := p.Estate(); e.Orphans != 3 || e.Adopted != 0 {
			t.Errorf("%+v", e)
		}
	})
}

// TestLateReserve: oned finishes a call to reserve when its caller has given up
// and the pool is gone.
func TestLateReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		parent := c.network("public", range4("10.0.0.1", 200))
		p := start(t, c, s, func(_ *Options, p *process) {
			p.client.fault = func(m string) fault {
				if m == "Reserve" {
					return fault{err: ErrUnavailable}
				}
				return fault{}
			}
		})
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		time.Sleep(20 * time.Second)
		spec.Leaving = true
		p.SetPools([]PoolSpec{spec})
		time.Sleep(time.Minute)
		if st, _ := p.PoolStatus("pub"); st.Reason != ReasonRemoved {
			t.Fatalf("%+v", st)
		}
		c.mu.Lock()
		if _, err := c.reserve("k8s", ReserveRequest{Parent: parent, Name: "c-pub", Into: NoNetwork, Size: 8}); err != nil {
			t.Error(err)
		}
		c.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := c.find("k8s", "c-pub"); n != nil {
			t.Errorf("%+v is left", n)
		}
		if len(s.all()) > 0 {
			t.Errorf("%v", s.all())
		}
	})
}
