package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func who(name string) Owner { return Owner{Namespace: "default", Name: name, UID: "uid of " + name} }

func (p *process) give(pool, name string, f Family, change func(*Request)) netip.Addr {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := Request{Pool: pool, Family: f, Owner: who(name)}
	if change != nil {
		change(&r)
	}
	rec, err := p.Allocate(ctx, r)
	if err != nil {
		p.t.Fatalf("address for %s: %v", name, err)
	}
	return rec.Address
}

// owners is what stands in OpenNebula about a reservation.
func (c *cloud) owners(name string) map[netip.Addr]Title {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[netip.Addr]Title{}
	if n := c.byName("k8s", name); n != nil {
		for _, r := range n.ranges {
			maps.Copy(all, ParseTitles(r.Attributes[AttributeOwners]))
		}
	}
	return all
}

// lose is etcd lost: every record is gone.
func (s *store) lose() {
	for a := range s.all() {
		s.erase(a)
	}
}

// recorded waits until owners are written.
func recorded() {
	time.Sleep(DefaultOwnersDelay + time.Second)
	synctest.Wait()
}

func TestOwnersOfABurst(t *testing.T) {
	for _, chunk := range []int{8, 64} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newCloud(), newStore()
			c.network("public", range4("10.0.0.1", 4000))
			p := start(t, c, s, nil)
			defer p.stop()
			spec := basePool("pub")
			spec.ChunkSize, spec.ReserveAhead = chunk, chunk
			p.SetPools([]PoolSpec{spec})
			p.mustBeReady("pub")
			before := c.count("")
			var wg sync.WaitGroup
			for creator := range 20 {
				wg.Go(func() {
					for i := range 50 {
						p.give("pub", fmt.Sprintf("s%d-%d", creator, i), IPv4, nil)
					}
				})
			}
			wg.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			calls := c.count("") - before
			if got := len(c.owners("c-pub")); got != 1000 {
				t.Errorf("%d of 1000 owners are in OpenNebula", got)
			}
			n := c.find("k8s", "c-pub")
			t.Logf("chunk %d: %d calls for 1,000 Services, %d ranges, %d writes of owners", chunk, calls, len(n.ranges), c.count("AnnotateRange"))
			if calls > 1200 {
				t.Errorf("%d calls for 1,000 Services", calls)
			}
			if w := c.count("AnnotateRange"); w > 2*len(n.ranges) {
				t.Errorf("%d writes of owners for %d ranges", w, len(n.ranges))
			}
			writes := c.count("AnnotateRange")
			time.Sleep(time.Hour)
			if got := c.count("AnnotateRange"); got != writes {
				t.Errorf("%d writes in an hour without changes", got-writes)
			}
		})
	}
}

func TestOwnersFollowAndAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 20))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		a, b := p.give("pub", "a", IPv4, nil), p.give("pub", "b", IPv4, nil)
		recorded()
		if got := c.owners("c-pub"); len(got) != 2 || !got[a].Has(who("a")) || !got[b].Has(who("b")) {
			t.Fatalf("%+v", got)
		}
		s.let(a, false)
		recorded()
		if got := c.owners("c-pub"); len(got) != 1 || !got[b].Has(who("b")) {
			t.Errorf("after a release: %+v", got)
		}
		// An admin's own attribute stays, what he did to ours is repaired.
		c.mu.Lock()
		c.byName("k8s", "c-pub").ranges[0].Attributes = map[string]string{"RACK": "7", AttributeOwners: b.String() + "=default/wrong"}
		c.mu.Unlock()
		time.Sleep(2 * DefaultInterval)
		synctest.Wait()
		got := c.find("k8s", "c-pub").ranges[0].Attributes
		if got["RACK"] != "7" || got[AttributeOwners] != b.String()+"=default/b" {
			t.Errorf("%v", got)
		}
		// A record kept for a name is written with its end.
		until := time.Now().Add(time.Hour)
		s.edit(b, func(r *Record) { r.Owners, r.Kept, r.KeptUntil = nil, who("b"), until })
		recorded()
		if got := c.owners("c-pub")[b]; !got.Has(who("b")) || got.Until.Unix() != until.Unix() {
			t.Errorf("%+v", got)
		}
		if alive := AliveAt(c.find("k8s", "c-pub").Network); time.Since(alive) > 2*DefaultInterval {
			t.Errorf("last sign of life %s", alive)
		}
	})
}

func TestOwnersThatCannotBeWrittenHarmNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 20))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		p.client.setFault(func(method string) fault {
			if method == "AnnotateRange" {
				return fault{err: ErrDenied}
			}
			return fault{}
		})
		a := p.give("pub", "a", IPv4, nil)
		time.Sleep(10 * time.Minute)
		if st := p.mustBeReady("pub"); st.Reason != ReasonReserved || c.use(st.ReservationID, a) != hold {
			t.Errorf("%+v, %q", st, c.use(st.ReservationID, a))
		}
		if n := p.countEvents(EventOwnersNotRecorded); n != 1 {
			t.Errorf("%d events, want one", n)
		}
		p.client.setFault(nil)
		time.Sleep(time.Minute)
		if !c.owners("c-pub")[a].Has(who("a")) {
			t.Error("not written when it was possible")
		}
	})
}

// rebuilt runs a cluster with a few addresses, loses its records, and starts
// a process of a new one.
func rebuilt(t *testing.T, spec PoolSpec, change func(*Options), ranges ...Range) (c *cloud, s *store, had map[string]netip.Addr, p *process) {
	t.Helper()
	c, s, had = newCloud(), newStore(), map[string]netip.Addr{}
	c.network("public", ranges...)
	p = start(t, c, s, nil)
	p.SetPools([]PoolSpec{spec})
	p.mustBeReady("pub")
	for _, f := range families {
		for _, n := range []string{"a", "b", "c"} {
			if slices.ContainsFunc(ranges, func(r Range) bool { return r.first(f).IsValid() }) {
				had[n+f.String()] = p.give("pub", n, f, nil)
			}
		}
	}
	recorded()
	p.crash()
	s.lose()
	p = start(t, c, s, func(o *Options, _ *process) {
		if change != nil {
			change(o)
		}
	})
	return c, s, had, p
}

func TestLostRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, had, p := rebuilt(t, basePool("pub"), nil, pairs("10.0.0.1", "2001:db8::1", 4), range6("2001:db8:5::1", 40), range4("10.9.0.1", 40))
		defer func() { p.stop() }()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		if u := p.Unread(); len(u) > 0 {
			t.Errorf("unread: %v", u)
		}
		// A stranger that comes first gets none of them, also not the other half of a pair.
		taken := map[netip.Addr]bool{}
		for _, a := range had {
			taken[a] = true
		}
		for i := range 8 {
			for _, f := range families {
				if a := p.give("pub", fmt.Sprint("new", i), f, nil); taken[a] {
					t.Errorf("%s, which is kept, was given to a stranger", a)
				}
			}
		}
		if err := p.allocateErr(Request{Pool: "pub", Want: had["aIPv4"], Owner: who("b")}); !errors.Is(err, ErrTaken) {
			t.Errorf("%v, want ErrTaken", err)
		}
		for key, a := range had {
			name := key[:1]
			found := false
			for _, f := range p.Formers(Owner{Namespace: "default", Name: name, UID: "new"}) {
				found = found || f.Address == a && f.Pool == "pub" && !f.Taken
			}
			if !found {
				t.Errorf("%s is not kept for %s", a, name)
			}
			if got := p.give("pub", name, familyOf(a), func(r *Request) { r.Want, r.Owner.UID = a, "new" }); got != a {
				t.Errorf("%s got %s, had %s", name, got, a)
			}
		}
		recorded()
		if len(p.Formers(who("a"))) > 0 || p.countEvents(EventOrphanReleased) > 0 {
			t.Error("something is kept still, or was released")
		}
		if owners := c.owners("c-pub"); len(owners) != len(s.all()) {
			t.Errorf("%d owners written, %d records", len(owners), len(s.all()))
		}
	})
}

// A process that ends between the return of one owner and that of the next
// forgets nobody.
func TestLostRecordsOfASharedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, _, p := rebuilt(t, basePool("pub"), nil, range4("10.0.0.1", 20))
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		a := p.give("pub", "d", IPv4, nil)
		s.edit(a, func(r *Record) { r.Owners, r.Share = []Owner{who("d"), who("e"), who("f")}, "k" })
		recorded()
		p.crash()
		s.lose()
		for _, next := range []string{"d", "e"} {
			p = start(t, c, s, nil)
			p.SetPools([]PoolSpec{basePool("pub")})
			p.mustBeReady("pub")
			if next == "d" {
				p.give("pub", "d", IPv4, func(r *Request) { r.Want, r.Detail = a, "k" })
			} else {
				s.edit(a, func(r *Record) { r.Owners = append(r.Owners, who("e")) })
			}
			recorded()
			if f := p.Formers(who("f")); len(f) != 1 || f[0].Address != a || !f[0].Taken || len(p.Formers(who(next))) > 0 {
				t.Errorf("after %s: kept for f: %+v, for %s: %+v", next, f, next, p.Formers(who(next)))
			}
			if got := c.owners("c-pub")[a]; len(got.Owners) != 3 || got.Share != "k" {
				t.Errorf("after %s OpenNebula says %+v", next, got)
			}
			p.stop()
		}
	})
}

func TestFormersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, had, p := rebuilt(t, basePool("pub"), nil, range4("10.0.0.1", 20))
		defer func() { p.stop() }()
		spec := basePool("pub")
		spec.Draining = true // keeps what it has given, and the former owners' are such
		p.SetPools([]PoolSpec{spec})
		settle()
		if got := p.give("pub", "a", IPv4, func(r *Request) { r.Want = had["aIPv4"] }); got != had["aIPv4"] {
			t.Error(got)
		}
		st, _ := p.PoolStatus("pub")
		time.Sleep(DefaultFormerGrace - time.Minute)
		if c.use(st.ReservationID, had["bIPv4"]) != hold {
			t.Errorf("%s was released too early", had["bIPv4"])
		}
		time.Sleep(time.Minute + DefaultOrphanGrace + 3*DefaultInterval)
		synctest.Wait()
		for _, n := range []string{"b", "c"} {
			if use := c.use(st.ReservationID, had[n+"IPv4"]); use == hold {
				t.Errorf("%s is still on hold a day later", had[n+"IPv4"])
			}
		}
		if got := c.owners("c-pub"); len(got) != 1 || len(s.all()) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// Records that are removed by force, one by one, are found in OpenNebula too.
func TestForcedRemovalIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 20))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		a := p.give("pub", "a", IPv4, nil)
		recorded()
		time.Sleep(3 * time.Second)
		s.erase(a)
		time.Sleep(30 * time.Second)
		if f := p.Formers(who("a")); len(f) != 1 || f[0].Address != a {
			t.Fatalf("%+v; OpenNebula says %+v", f, c.owners("c-pub"))
		}
		// What it prefers counts for less than what it had; a stranger may prefer what he likes.
		if b := p.give("pub", "b", IPv4, func(r *Request) { r.Prefer = a }); b == a {
			t.Error("a stranger got it")
		}
		if got := p.give("pub", "a", IPv4, func(r *Request) { r.Want = a }); got != a {
			t.Error(got)
		}
	})
}

func TestPreferredAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 20))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		st := p.mustBeReady("pub")
		if a := p.give("pub", "a", IPv4, func(r *Request) { r.Prefer = addr("10.0.0.3") }); a != addr("10.0.0.3") {
			t.Error(a)
		}
		if a := p.give("pub", "b", IPv4, func(r *Request) { r.Prefer = addr("10.0.0.3") }); a == addr("10.0.0.3") {
			t.Error("given twice")
		}
		if a := p.give("pub", "c", IPv4, func(r *Request) { r.Prefer = addr("10.0.0.19") }); a == addr("10.0.0.19") {
			t.Error("an address that is not reserved is not worth a call")
		}
		// On hold without record, and nobody known: whoever shows it had it.
		c.set(st.ReservationID, addr("10.0.0.5"), hold)
		time.Sleep(2 * DefaultInterval)
		if a := p.give("pub", "d", IPv4, func(r *Request) { r.Prefer = addr("10.0.0.5") }); a != addr("10.0.0.5") {
			t.Error(a)
		}
	})
}

// The release of one half of a pair leaves the hold to the other half's former
// owner.
func TestReleaseBesideAFormerOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s, had, p := rebuilt(t, basePool("pub"), nil, pairs("10.0.0.1", "2001:db8::1", 20))
		defer func() { p.stop() }()
		p.SetPools([]PoolSpec{basePool("pub")})
		st := p.mustBeReady("pub")
		p.give("pub", "a", IPv4, func(r *Request) { r.Want = had["aIPv4"] })
		settle()
		s.let(had["aIPv4"], false)
		time.Sleep(2 * time.Minute)
		if use := c.use(st.ReservationID, had["aIPv6"]); use != hold {
			t.Errorf("%s is used by %q", had["aIPv6"], use)
		}
		if f := p.Formers(who("a")); len(f) != 1 || f[0].Address != had["aIPv6"] {
			t.Errorf("%+v", f)
		}
	})
}

// Pools whose reservations another cluster has are waited for when the first of
// them was adopted: a Service's address may be in any.
func TestAdoptionIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 40))
		p := start(t, c, s, nil)
		specs := []PoolSpec{basePool("a"), basePool("b")}
		p.SetPools(specs)
		p.mustBeReady("a")
		p.crash()
		p = start(t, c, s, func(o *Options, _ *process) { o.Identity = "other" })
		defer func() { p.stop() }()
		p.SetPools(specs)
		time.Sleep(2 * time.Minute)
		if u := p.Unread(); len(u) > 0 {
			t.Errorf("%v: nothing says that these will ever be ours", u)
		}
		adopt := func(name string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.byName("k8s", name).Attributes[AttributeClusterUID] = "other"
		}
		adopt("c-a")
		time.Sleep(45 * time.Second)
		if u := p.Unread(); !slices.Equal(u, []string{"b"}) {
			t.Errorf("%v, want b", u)
		}
		adopt("c-b")
		time.Sleep(45 * time.Second)
		if u := p.Unread(); len(u) > 0 {
			t.Errorf("%v, want none", u)
		}
		p.mustBeReady("b")
	})
}
