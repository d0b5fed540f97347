package guard

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// progress is what is known of a machine that has something to do.
type progress struct {
	due  time.Time
	wait retry
	// quiet counts the steps since the last hotplug was begun.
	quiet int
	// begun is the hotplug that was asked for last; done when a reading shows
	// its outcome.
	begun *hotplug
	err   error
}

// hotplug is one attach or detach.
type hotplug struct {
	attach  bool
	address netip.Addr
	pool    string
	at      time.Time
}

// serve does one step for each machine that is due, and says when the next is.
func (c *Controller) serve(ctx context.Context, w *world) (next time.Time) {
	busy := map[int]bool{}
	for _, id := range w.busy(c) {
		busy[id] = true
		p := c.work[id]
		if p == nil {
			p = &progress{wait: retry{first: c.o.Poll}}
			c.work[id] = p
		}
		if !time.Now().Before(p.due) && ctx.Err() == nil {
			c.step(ctx, w, id, p)
		}
		next = soonest(next, p.due)
	}
	for id := range c.work {
		if !busy[id] {
			delete(c.work, id)
		}
	}
	return next
}

func soonest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// busy lists the machines with something to do, sorted.
func (w *world) busy(c *Controller) []int {
	var ids []int
	for id, addresses := range w.on {
		m := c.machine(id)
		if p := c.work[id]; p != nil && p.begun != nil {
			ids = append(ids, id)
			continue
		}
		for _, a := range addresses {
			v := w.of[a]
			k := v.Spec.Guard.Candidates[find(v.Spec.Guard.Candidates, id)]
			if m == nil || m.Gone || c.can(w, *m, k, v, a) {
				ids = append(ids, id)
				break
			}
		}
	}
	for i := range c.machines {
		if id := c.machines[i].ID; w.ours(id) && len(w.strays(c.machines[i])) > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// can reports whether there is something to do about a candidate that need not
// wait for somebody else: its node to hand the address on, IPAM to put it on hold.
func (c *Controller) can(w *world, m Machine, k v1alpha1.Candidate, v *v1alpha1.VirtualIP, a netip.Addr) bool {
	p, ok := w.pool(v.Spec.Pool)
	known := ok && p.Reservation >= 0
	switch k.State {
	case v1alpha1.CandidateAttached:
		n, has := m.alias(p.Reservation, a)
		return known && (!has || n.Changing)
	case v1alpha1.CandidateAttaching:
		_, has := m.alias(p.Reservation, a)
		return known && (has || onHold(v))
	case v1alpha1.CandidateDetaching:
		return !c.inUse(v, k.Node)
	}
	return false
}

// ours reports whether a machine is one of this cluster's nodes, or was.
func (w *world) ours(id int) bool {
	return len(w.on[id]) > 0 || slices.ContainsFunc(w.members, func(m member) bool { return m.id == id })
}

// strays are aliases in our reservations that no VirtualIP knows of: a process
// that was leader before attached them on an outdated view.
func (w *world) strays(m Machine) []NIC {
	return slices.DeleteFunc(slices.Clone(m.NICs), func(n NIC) bool {
		if !n.Alias || !slices.ContainsFunc(w.pools, func(p Pool) bool { return p.Guarded && p.Reservation >= 0 && p.Reservation == n.Network }) {
			return true // not ours
		}
		return slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool {
			v := w.of[a]
			return v != nil && find(v.Spec.Guard.Candidates, m.ID) >= 0
		})
	})
}

// step reads a machine, writes down what it sees, and begins the next hotplug.
func (c *Controller) step(ctx context.Context, w *world, id int, p *progress) {
	m, err := c.o.OpenNebula.Machine(ctx, id)
	if errors.Is(err, ipam.ErrNotFound) {
		m, err = Machine{ID: id, Gone: true}, nil
	}
	if err == nil {
		c.refresh(m)
		err = c.note(ctx, w, m)
	}
	if err == nil {
		err = c.judge(ctx, p, m, w)
	}
	if err == nil && m.Settled && !m.Gone {
		err = c.begin(ctx, w, m, p)
	}
	if ctx.Err() != nil {
		return
	}
	p.err = err
	switch {
	case err == nil && p.begun == nil: // all is done, or the machine is in a state to wait out
		p.due = time.Now().Add(min(c.o.Poll<<min(p.quiet, 20), c.o.Resync))
		p.quiet++
		if m.Settled {
			p.wait.ok()
		}
	case err == nil:
		p.quiet = 0
		p.due = time.Now().Add(c.pollPause(p.begun))
	default:
		p.wait.fail()
		p.due = p.wait.until
		klog.FromContext(ctx).Error(err, "A virtual machine cannot be given its aliases; trying again", "machine", id, "state", m.State, "failures", p.wait.failures)
	}
}

// pollPause grows with the time that a hotplug takes: by up to a half of it.
func (c *Controller) pollPause(h *hotplug) time.Duration {
	return min(max(c.o.Poll, time.Since(h.at)/2), 30*time.Second)
}

// refresh puts a fresh reading in the place of the one in the list.
func (c *Controller) refresh(m Machine) {
	if old := c.machine(m.ID); old != nil {
		*old = m
		return
	}
	if !m.Gone {
		c.machines = append(c.machines, m)
	}
}

// note writes into the VirtualIPs what a reading shows of their aliases.
func (c *Controller) note(ctx context.Context, w *world, m Machine) error {
	for _, a := range w.on[m.ID] {
		pool, ok := w.pool(w.of[a].Spec.Pool)
		if !ok {
			pool.Reservation = -1
		}
		var now []v1alpha1.Candidate
		err := c.o.Store.SetCandidates(ctx, a, func(v *v1alpha1.VirtualIP) []v1alpha1.Candidate {
			now = observe(v.Spec.Guard.Candidates, a, m, pool.Reservation)
			return now
		})
		if err != nil {
			return err
		}
		if now == nil {
			continue
		}
		v := w.of[a].DeepCopy()
		v.Spec.Guard.Candidates = now
		w.of[a] = v
		if len(now) == 0 {
			c.o.OnChange()
		}
	}
	return nil
}

// observe is the list as a fresh reading of a machine shows it to be.
func observe(list []v1alpha1.Candidate, a netip.Addr, m Machine, reservation int) []v1alpha1.Candidate {
	i := find(list, m.ID)
	if i < 0 {
		return list
	}
	n, has := m.alias(reservation, a)
	state := list[i].State
	switch {
	case m.Gone, !has && m.Settled && state == v1alpha1.CandidateDetaching:
		return slices.Delete(slices.Clone(list), i, i+1)
	case reservation < 0: // it is not known which network the alias would be in
	case state == v1alpha1.CandidateAttaching && has && !n.Changing:
		state = v1alpha1.CandidateAttached
	case state == v1alpha1.CandidateAttached && (!has || n.Changing):
		state = v1alpha1.CandidateAttaching // somebody else detached it
	}
	if state == list[i].State {
		return list
	}
	out := slices.Clone(list)
	out[i].State = state
	return out
}

// judge says what became of the hotplug that was begun last.
func (c *Controller) judge(ctx context.Context, p *progress, m Machine, w *world) error {
	h := p.begun
	if h == nil {
		return nil
	}
	if !m.Settled && !m.Gone {
		return nil // still at it
	}
	p.begun = nil
	pool, _ := w.pool(h.pool)
	_, has := m.alias(pool.Reservation, h.address)
	took := time.Since(h.at)
	if has == h.attach || m.Gone {
		p.wait.ok()
		observeHotplug(h.attach, "ok", took)
		klog.FromContext(ctx).V(2).Info("Hotplug done", "machine", m.ID, "address", h.address, "attach", h.attach, "took", took)
		return nil
	}
	observeHotplug(h.attach, "failed", took)
	if h.attach {
		return errVanished
	}
	return errStays
}

var (
	errVanished = errors.New("OpenNebula took the alias and its driver failed: see the machine's log and its attribute ERROR in OpenNebula")
	errStays    = errors.New("OpenNebula's driver failed to detach the alias: see the machine's log in OpenNebula")
)

// begin asks for the next hotplug, if there is one to do.
func (c *Controller) begin(ctx context.Context, w *world, m Machine, p *progress) error {
	if nic, h, ok := c.toDetach(w, m); ok {
		h.at = time.Now()
		err := c.o.OpenNebula.DetachNIC(ctx, m.ID, nic)
		return p.asked(h, err)
	}
	if h, ok := c.toAttach(w, m); ok {
		pool, _ := w.pool(h.pool)
		nic, carries := m.carrier(pool)
		if !carries {
			return errNoNIC
		}
		h.at = time.Now()
		err := c.o.OpenNebula.AttachAlias(ctx, m.ID, pool.Reservation, nic.Name, h.address)
		return p.asked(h, err)
	}
	return nil
}

var errNoNIC = errors.New("the machine has no NIC in the network of the pool any more: attach one")

// asked notes how asking for a hotplug went.
func (p *progress) asked(h hotplug, err error) error {
	switch {
	case err == nil:
		p.begun = &h
	case errors.Is(err, ipam.ErrNotReady):
		observeHotplug(h.attach, "busy", 0)
	case errors.Is(err, ipam.ErrNotFound) && !h.attach:
		return nil // the next reading tells
	default:
		observeHotplug(h.attach, "refused", 0)
	}
	return err
}

// toDetach is the alias to detach next: first what nobody knows of, then
// candidates that have handed their address on.
func (c *Controller) toDetach(w *world, m Machine) (int, hotplug, bool) {
	if strays := w.strays(m); len(strays) > 0 {
		n, h := strays[0], hotplug{}
		if len(n.Addresses) > 0 {
			h.address = n.Addresses[0]
		}
		for _, p := range w.pools {
			if p.Reservation == n.Network {
				h.pool = p.Name
			}
		}
		return n.ID, h, true
	}
	for _, a := range w.on[m.ID] {
		v := w.of[a]
		i := find(v.Spec.Guard.Candidates, m.ID)
		if i < 0 || v.Spec.Guard.Candidates[i].State != v1alpha1.CandidateDetaching || c.inUse(v, v.Spec.Guard.Candidates[i].Node) {
			continue
		}
		pool, ok := w.pool(v.Spec.Pool)
		if n, has := m.alias(pool.Reservation, a); ok && has {
			return n.ID, hotplug{address: a, pool: pool.Name}, true
		}
	}
	return 0, hotplug{}, false
}

// inUse reports whether the node may still answer for the address.
func (c *Controller) inUse(v *v1alpha1.VirtualIP, node string) bool {
	if v.Status.Holder == nil || v.Status.Holder.Name != node {
		return false
	}
	return c.o.Active(v) || c.o.Answered(v)
}

// toAttach is the next address for a machine. The hold comes first: from then on
// OpenNebula gives the address to nobody else.
func (c *Controller) toAttach(w *world, m Machine) (hotplug, bool) {
	for _, a := range w.on[m.ID] {
		v := w.of[a]
		i := find(v.Spec.Guard.Candidates, m.ID)
		if i < 0 || v.Spec.Guard.Candidates[i].State != v1alpha1.CandidateAttaching || !onHold(v) {
			continue
		}
		pool, ok := w.pool(v.Spec.Pool)
		if !ok || pool.Reservation < 0 {
			continue
		}
		if _, has := m.alias(pool.Reservation, a); !has {
			return hotplug{attach: true, address: a, pool: pool.Name}, true
		}
	}
	return hotplug{}, false
}

func onHold(v *v1alpha1.VirtualIP) bool {
	return apimeta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.VirtualIPOnHold)
}
