package guard

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/onelb/onelb/api/v1alpha1"
)

// world is what one pass sees.
type world struct {
	pools   []Pool // sorted by name
	members []member
	vips    []*v1alpha1.VirtualIP
	// on are the addresses that have a machine in their list, by machine.
	on map[int][]netip.Addr
	// of are the objects by address.
	of map[netip.Addr]*v1alpha1.VirtualIP
}

// member is a node with its machine; nil if none is seen.
type member struct {
	name    string
	machine *Machine
	id      int
	able    bool // node and machine are as they should be
	lately  bool // they were until a short while ago
	failing bool // hotplugs fail there
	labels  labels.Set
	own     []netip.Addr // of the node, for the others
}

// sender is the NIC by which the node sends from addresses of a pool.
func (m member) sender(p Pool) (NIC, bool) {
	if m.machine == nil {
		return NIC{}, false
	}
	if !p.Routed {
		return m.machine.carrier(p)
	}
	i := slices.IndexFunc(m.machine.NICs, func(n NIC) bool {
		return !n.Alias && !n.Changing && slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return slices.Contains(m.own, a) })
	})
	if i < 0 {
		return NIC{}, false
	}
	return m.machine.NICs[i], true
}

// ownAddresses are those by which other nodes reach a node.
func ownAddresses(n *corev1.Node) (out []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

// world joins nodes and machines. A node whose object is gone stays for a while
// as a candidate of the addresses that it is on.
func (c *Controller) world(pools []Pool, vips []*v1alpha1.VirtualIP) *world {
	w := &world{pools: slices.Clone(pools), on: map[int][]netip.Addr{}, of: map[netip.Addr]*v1alpha1.VirtualIP{}}
	slices.SortFunc(w.pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
	seen := map[string]bool{}
	for _, obj := range c.o.Nodes.GetStore().List() {
		n, ok := obj.(*corev1.Node)
		if !ok {
			continue
		}
		m := member{name: n.Name, id: -1, labels: n.Labels, own: ownAddresses(n)}
		if id, ok := c.o.MachineOf(n); ok {
			m.id, m.machine = id, c.machine(id)
		}
		if m.labels == nil {
			m.labels = labels.Set{} // nil is for nodes that are gone
		}
		seen[n.Name] = true
		m.able = c.usable(n) && m.machine != nil && m.machine.Alive && !m.machine.Gone
		m.lately = m.able || c.missedFor(n.Name) < c.o.ReplaceAfter
		if p := c.work[m.id]; p != nil {
			m.failing = p.wait.failures >= tooManyFailures
		}
		if m.able {
			delete(c.missing, n.Name)
		}
		w.members = append(w.members, m)
	}
	for _, v := range vips {
		for _, k := range v.Spec.Guard.Candidates {
			if id := int(k.Machine); !seen[k.Node] {
				seen[k.Node] = true
				w.members = append(w.members, member{name: k.Node, id: id, machine: c.machine(id), lately: c.missedFor(k.Node) < c.o.ReplaceAfter})
			}
		}
	}
	for name := range c.missing {
		if !seen[name] {
			delete(c.missing, name)
		}
	}
	slices.SortFunc(w.members, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	return w
}

// missedFor is for how long a node has not been able.
func (c *Controller) missedFor(name string) time.Duration {
	since, ok := c.missing[name]
	if !ok {
		since = time.Now()
		c.missing[name] = since
	}
	return time.Since(since)
}

// usable reports whether the node's object allows it to hold addresses.
func (c *Controller) usable(n *corev1.Node) bool {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	return !excluded && n.DeletionTimestamp == nil
}

// nodesOf are the nodes as candidates for addresses of a pool.
func (w *world) nodesOf(p Pool) []node {
	var out []node
	for _, m := range w.members {
		n := node{name: m.name, machine: m.id, failing: m.failing}
		if m.machine != nil {
			_, carries := m.machine.carrier(p)
			n.ready = m.able && carries && !m.failing
			n.counts = m.lately && carries
		} else {
			n.counts = m.lately && m.id >= 0
		}
		if p.Selector != nil && m.labels != nil && !p.Selector.Matches(m.labels) {
			n.ready, n.counts = false, false
		}
		out = append(out, n)
	}
	return out
}

func (w *world) pool(name string) (Pool, bool) {
	i := slices.IndexFunc(w.pools, func(p Pool) bool { return p.Name == name })
	if i < 0 {
		return Pool{}, false
	}
	return w.pools[i], true
}

// add takes in the addresses with the candidates that were just chosen.
func (w *world) add(vips []*v1alpha1.VirtualIP) {
	w.vips = vips
	for _, v := range vips {
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil {
			continue
		}
		w.of[a] = v
		for _, c := range v.Spec.Guard.Candidates {
			w.on[int(c.Machine)] = append(w.on[int(c.Machine)], a)
		}
	}
}

// same compares lists of candidates.
func same(a, b []v1alpha1.Candidate) bool { return slices.Equal(a, b) }

// find is the place of a machine in an address' list, or -1.
func find(list []v1alpha1.Candidate, machine int) int {
	return slices.IndexFunc(list, func(c v1alpha1.Candidate) bool { return int(c.Machine) == machine })
}
