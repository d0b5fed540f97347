package ipam

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// cloud is OpenNebula as far as networks go, with the manners that were
// recorded of a real one: a hold is not idempotent and has no owner, a release
// always says ok, a reservation is a snapshot that is locked at first, a
// reservation past the end of a range corrupts the parent.
type cloud struct {
	mu     sync.Mutex
	nets   map[NetworkID]*fakeNet
	next   NetworkID
	calls  map[string]int
	lock   time.Duration // for how long a new reservation is in LOCK_CREATE
	quota  int           // reservable addresses left; negative: no limit
	robbed []netip.Addr  // holds of strangers that we released
}

type fakeNet struct {
	Network
	ranges  []*fakeRange
	nextAR  RangeID
	managed bool // our user has MANAGE and sees all leases
	readyAt time.Time
}

type fakeRange struct {
	Range
	use map[int]string // place → "hold", "VM 3", "VNET 8"
	// ours says which holds our clients made: OpenNebula does not know it.
	ours map[int]bool
}

const hold = "hold"

func newCloud() *cloud {
	return &cloud{nets: map[NetworkID]*fakeNet{}, calls: map[string]int{}, lock: 10 * time.Millisecond, quota: -1}
}

// network adds a network of the admin.
func (c *cloud) network(name string, ranges ...Range) NetworkID {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.add(name, "oneadmin", NoNetwork)
	n.readyAt = time.Time{}
	for _, r := range ranges {
		r.ParentRange = -1
		n.addRange(r)
	}
	return n.ID
}

func (c *cloud) add(name, owner string, parent NetworkID) *fakeNet {
	n := &fakeNet{
		Network: Network{ID: c.next, Name: name, Owner: owner, Parent: parent, Attributes: map[string]string{"BRIDGE": "br0"}},
		readyAt: time.Now().Add(c.lock),
	}
	c.nets[n.ID] = n
	c.next++
	return n
}

func (n *fakeNet) addRange(r Range) *fakeRange {
	r.ID = n.nextAR
	n.nextAR++
	f := &fakeRange{Range: r, use: map[int]string{}, ours: map[int]bool{}}
	n.ranges = append(n.ranges, f)
	return f
}

func (n *fakeNet) ready() bool { return !time.Now().Before(n.readyAt) }

// snapshot is what one.vn.info tells: a user without MANAGE does not see the
// leases of others, only how many there are.
func (n *fakeNet) snapshot(user string, nets map[NetworkID]*fakeNet) Network {
	out := n.Network
	out.Attributes = maps.Clone(n.Attributes)
	out.Ready, out.State = n.ready(), "READY"
	if !out.Ready {
		out.State = "LOCK_CREATE"
	}
	out.Ranges = nil
	for _, r := range n.ranges {
		c := r.Range
		c.Used = len(r.use)
		c.Attributes = maps.Clone(r.Attributes)
		for _, i := range slices.Sorted(maps.Keys(r.use)) {
			l := Lease{Held: r.use[i] == hold}
			if !l.Held {
				l.User = r.use[i]
			}
			if user != "oneadmin" && n.Owner != user && !n.managed && !mine(r.use[i], user, nets) {
				continue
			}
			if !r.First4.IsValid() && !r.First6.IsValid() {
				continue // a MAC address
			}
			if r.First4.IsValid() {
				l.IP4 = advance(r.First4, i)
			}
			if r.First6.IsValid() {
				l.IP6 = advance(r.First6, i)
			}
			c.Leases = append(c.Leases, l)
		}
		out.Ranges = append(out.Ranges, c)
	}
	return out
}

func mine(use, user string, nets map[NetworkID]*fakeNet) bool {
	var id NetworkID
	if _, err := fmt.Sscanf(use, "VNET %d", &id); err != nil {
		return false
	}
	return nets[id] != nil && nets[id].Owner == user
}

func (n *fakeNet) at(a netip.Addr) (*fakeRange, int) {
	for _, r := range n.ranges {
		if i, ok := position(r.first(familyOf(a)), r.Size, a); ok {
			return r, i
		}
	}
	return nil, 0
}

// use returns who uses an address of a network; "" for nobody.
func (c *cloud) use(id NetworkID, a netip.Addr) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nets[id]
	if n == nil {
		return "no network"
	}
	r, i := n.at(a)
	if r == nil {
		return "not in the network"
	}
	return r.use[i]
}

// set lets somebody use an address, or ("") nobody.
func (c *cloud) set(id NetworkID, a netip.Addr, use string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, i := c.nets[id].at(a)
	if r == nil {
		return
	}
	if use == "" {
		delete(r.use, i)
		delete(r.ours, i)
		return
	}
	r.use[i] = use
	delete(r.ours, i)
}

func (c *cloud) byName(owner, name string) *fakeNet {
	for _, id := range slices.Sorted(maps.Keys(c.nets)) {
		if n := c.nets[id]; n.Name == name && (owner == "" || n.Owner == owner) {
			return n
		}
	}
	return nil
}

// find returns a copy of a network, nil if there is none.
func (c *cloud) find(owner, name string) *fakeNet {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byName(owner, name)
	if n == nil {
		return nil
	}
	out := *n
	out.Attributes = maps.Clone(n.Attributes)
	return &out
}

// count returns how often a method was called; "" for all.
func (c *cloud) count(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if method != "" {
		return c.calls[method]
	}
	total := 0
	for _, n := range c.calls {
		total += n
	}
	return total
}

// reserve is one.vn.reserve. The caller holds mu.
func (c *cloud) reserve(user string, q ReserveRequest) (NetworkID, error) {
	parent := c.nets[q.Parent]
	switch {
	case parent == nil:
		return 0, ErrNotFound
	case parent.Parent != NoNetwork:
		return 0, fmt.Errorf("a reservation of a reservation: %w", ErrUnusable)
	case q.Size < 1:
		return 0, fmt.Errorf("size %d", q.Size)
	case q.Into == NoNetwork && c.byName(user, q.Name) != nil:
		return 0, ErrExists
	case q.Into != NoNetwork && c.nets[q.Into] == nil:
		return 0, ErrNotFound
	case q.Into != NoNetwork && c.nets[q.Into].Parent != q.Parent:
		return 0, fmt.Errorf("another parent: %w", ErrUnusable)
	case c.quota >= 0 && c.quota < q.Size:
		return 0, ErrDenied
	}
	r, start, ok := parent.room(q)
	if !ok {
		return 0, ErrNoSpace
	}
	var n *fakeNet
	if q.Into == NoNetwork {
		n = c.add(q.Name, user, q.Parent)
	} else {
		n = c.nets[q.Into]
	}
	part := Range{Kind: r.Kind, Size: q.Size, ParentRange: r.ID}
	if r.First4.IsValid() {
		part.First4 = advance(r.First4, start)
	}
	if r.First6.IsValid() {
		part.First6 = advance(r.First6, start)
	}
	n.addRange(part)
	for i := range q.Size {
		r.use[start+i] = fmt.Sprintf("VNET %d", n.ID)
	}
	if c.quota >= 0 {
		c.quota -= q.Size
	}
	return n.ID, nil
}

func (n *fakeNet) room(q ReserveRequest) (*fakeRange, int, bool) {
	i := slices.IndexFunc(n.ranges, func(r *fakeRange) bool { return r.ID == q.Range })
	if i < 0 {
		return nil, 0, false
	}
	r := n.ranges[i]
	if q.First.IsValid() {
		start, ok := position(r.first(familyOf(q.First)), r.Size, q.First)
		if ok && start+q.Size > r.Size {
			panic("a reservation past the end of a range has corrupted the parent network")
		}
		return r, start, ok && r.isFree(start, q.Size)
	}
	for start := range r.Size - q.Size + 1 {
		if r.isFree(start, q.Size) {
			return r, start, true
		}
	}
	return nil, 0, false
}

func (r *fakeRange) isFree(start, size int) bool {
	for i := range size {
		if r.use[start+i] != "" {
			return false
		}
	}
	return true
}

// freeRange gives a range back. The caller holds mu.
func (c *cloud) freeRange(n *fakeNet, id RangeID) error {
	i := slices.IndexFunc(n.ranges, func(r *fakeRange) bool { return r.ID == id })
	if i < 0 {
		return ErrNotFound
	}
	r := n.ranges[i]
	if len(r.use) > 0 {
		return ErrInUse
	}
	n.ranges = slices.Delete(n.ranges, i, i+1)
	parent := c.nets[n.Parent]
	if parent == nil {
		return nil
	}
	f := IPv4
	if !r.First4.IsValid() {
		f = IPv6
	}
	for i := range r.Size {
		if p, place := parent.at(advance(r.first(f), i)); p != nil {
			delete(p.use, place)
		}
	}
	if c.quota >= 0 {
		c.quota += r.Size
	}
	return nil
}

// fault decides about one call of a port: how long it takes before and after
// its effect, whether it has an effect, and what it answers.
type fault struct {
	before, after time.Duration
	err           error // instead of an answer
	effect        bool  // with err: it had its effect all the same
	crash         bool  // the process dies, before or (with effect) after
}

// client is OpenNebula as one process with one user sees it.
type client struct {
	*cloud
	user  string
	fault func(method string) fault
	dead  *life
}

// setFault replaces the faults of a running process.
func (c *client) setFault(fault func(string) fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = fault
}

// do makes a call with its faults.
func do[T any](ctx context.Context, dead *life, f fault, call func() (T, error)) (T, error) {
	var none T
	if err := dead.err(ctx); err != nil {
		return none, err
	}
	if f.before > 0 && !sleep(ctx, f.before) {
		return none, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if f.crash && !f.effect {
		dead.die()
	}
	if err := dead.err(ctx); err != nil {
		return none, err
	}
	if f.err != nil && !f.effect {
		return none, f.err
	}
	v, err := call()
	if f.crash {
		dead.die()
	}
	if err := dead.err(ctx); err != nil {
		return none, err
	}
	if f.after > 0 && !sleep(ctx, f.after) {
		return none, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	if f.err != nil {
		return none, f.err
	}
	return v, err
}

func (c *client) do(ctx context.Context, method string, call func() (Network, error)) (Network, error) {
	c.mu.Lock()
	decide := c.fault
	c.mu.Unlock()
	var f fault
	if decide != nil {
		f = decide(method)
	}
	return do(ctx, c.dead, f, func() (Network, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[method]++
		return call()
	})
}

func (c *client) Find(ctx context.Context, q NetworkQuery) (Network, error) {
	return c.do(ctx, "Find", func() (Network, error) {
		var found []*fakeNet
		for _, id := range slices.Sorted(maps.Keys(c.nets)) {
			n := c.nets[id]
			if q.ID != nil && n.ID == *q.ID || q.ID == nil && n.Name == q.Name && (q.Owner == "" || q.Owner == n.Owner) {
				found = append(found, n)
			}
		}
		switch len(found) {
		case 0:
			return Network{}, ErrNotFound
		case 1:
			return found[0].snapshot(c.user, c.nets), nil
		}
		return Network{}, ErrAmbiguous
	})
}

func (c *client) Get(ctx context.Context, id NetworkID) (Network, error) {
	return c.do(ctx, "Get", func() (Network, error) {
		if n := c.nets[id]; n != nil {
			return n.snapshot(c.user, c.nets), nil
		}
		return Network{}, ErrNotFound
	})
}

func (c *client) FindReservation(ctx context.Context, name string) (Network, error) {
	return c.do(ctx, "FindReservation", func() (Network, error) {
		if n := c.byName(c.user, name); n != nil {
			return n.snapshot(c.user, c.nets), nil
		}
		return Network{}, ErrNotFound
	})
}

func (c *client) Reserve(ctx context.Context, q ReserveRequest) (NetworkID, error) {
	n, err := c.do(ctx, "Reserve", func() (Network, error) {
		id, err := c.reserve(c.user, q)
		return Network{ID: id}, err
	})
	return n.ID, err
}

// mutate makes a call on one network.
func (c *client) mutate(ctx context.Context, method string, id NetworkID, call func(n *fakeNet) error) error {
	_, err := c.do(ctx, method, func() (Network, error) {
		n := c.nets[id]
		if n == nil {
			return Network{}, ErrNotFound
		}
		return Network{}, call(n)
	})
	return err
}

func (c *client) FreeRange(ctx context.Context, id NetworkID, r RangeID) error {
	return c.mutate(ctx, "FreeRange", id, func(n *fakeNet) error { return c.freeRange(n, r) })
}

func (c *client) DeleteReservation(ctx context.Context, id NetworkID) error {
	err := c.mutate(ctx, "DeleteReservation", id, func(n *fakeNet) error {
		if !n.ready() {
			return ErrNotReady
		}
		for _, r := range n.ranges {
			if len(r.use) > 0 {
				return ErrInUse
			}
		}
		for len(n.ranges) > 0 {
			if err := c.freeRange(n, n.ranges[0].ID); err != nil {
				return err
			}
		}
		delete(c.nets, id)
		return nil
	})
	if err == ErrNotFound { //nolint:errorlint // the fake's own
		return nil
	}
	return err
}

func (c *client) Annotate(ctx context.Context, id NetworkID, attributes map[string]string) error {
	return c.mutate(ctx, "Annotate", id, func(n *fakeNet) error {
		if !n.ready() {
			return ErrNotReady
		}
		maps.Copy(n.Attributes, attributes)
		return nil
	})
}

func (c *client) AnnotateRange(ctx context.Context, id NetworkID, r RangeID, attributes map[string]string) error {
	return c.mutate(ctx, "AnnotateRange", id, func(n *fakeNet) error {
		if !n.ready() {
			return ErrNotReady
		}
		for _, x := range n.ranges {
			if x.ID == r {
				x.Attributes = maps.Clone(attributes)
				return nil
			}
		}
		return ErrNotFound
	})
}

func (c *client) Hold(ctx context.Context, id NetworkID, a netip.Addr) error {
	return c.mutate(ctx, "Hold", id, func(n *fakeNet) error {
		if !n.ready() {
			return ErrNotReady
		}
		r, i := n.at(a)
		if r == nil || r.use[i] != "" {
			return ErrInUse
		}
		r.use[i] = hold
		r.ours[i] = true
		return nil
	})
}

func (c *client) Release(ctx context.Context, id NetworkID, a netip.Addr) error {
	return c.mutate(ctx, "Release", id, func(n *fakeNet) error {
		if r, i := n.at(a); r != nil && r.use[i] == hold {
			if n.Parent == NoNetwork && !r.ours[i] {
				c.robbed = append(c.robbed, a)
			}
			delete(r.use, i)
			delete(r.ours, i)
		}
		return nil
	})
}

func (c *client) Reservations(ctx context.Context) ([]Reservation, error) {
	var all []Reservation
	_, err := c.do(ctx, "Reservations", func() (Network, error) {
		for _, id := range slices.Sorted(maps.Keys(c.nets)) {
			if n := c.nets[id]; n.Owner == c.user && n.Parent != NoNetwork {
				all = append(all, Reservation{ID: id, Name: n.Name, Attributes: maps.Clone(n.Attributes)})
			}
		}
		return Network{}, nil
	})
	return all, err
}

var (
	_ Networks  = (*client)(nil)
	_ Inventory = (*client)(nil)
)
