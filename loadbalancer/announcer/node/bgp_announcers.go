package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// Reasons of the events on Services with addresses of pools with exposure BGP.
const (
	// ReasonBGPAnnounced: at least one node announces an address to a BGP peer.
	ReasonBGPAnnounced = "BGPAnnounced"
	// ReasonBGPNotAnnounced: no node announces an address to any peer any more.
	ReasonBGPNotAnnounced = "BGPNotAnnounced"
)

const (
	// announcersPace is the least time between two looks at all addresses.
	announcersPace = 2 * time.Second
	// announcersBatch bounds what one look writes: when a node comes or goes, all
	// addresses change, and who announces them is for people to read.
	announcersBatch = 20
)

// announcers writes into VirtualIPs which nodes announce them. Each address is one
// node's to write, of those that speak BGP and are alive.
type announcers struct {
	node   string
	vips   client.VirtualIPs
	cached lookup
	wake   chan struct{}
	view   func() (n *network, nodes []announcer.Peer, speakers []*v1alpha1.BGPNode)

	// written are the versions of cached objects that were patched: until newer ones are
	// heard of, there is nothing new to say. It belongs to Run.
	written map[string]string
}

func (r *announcers) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx is done.
func (r *announcers) Run(ctx context.Context, events record.EventRecorder) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
		more, err := r.write(ctx, events)
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not write who announces; trying again")
		}
		if more || err != nil {
			r.nudge()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(announcersPace):
		}
	}
}

// change is what a VirtualIP should say.
type change struct {
	vip  *v1alpha1.VirtualIP
	want []v1alpha1.Announcer
}

// urgent: the address was announced by nobody, or is not any more.
func (c change) urgent() bool { return (len(c.want) == 0) != (len(c.vip.Status.Announcers) == 0) }

// write writes some of what differs, and reports whether there is more.
func (r *announcers) write(ctx context.Context, events record.EventRecorder) (more bool, err error) {
	n, nodes, speakers := r.view()
	if n == nil {
		return false, nil
	}
	changes := r.changes(n, nodes, speakers)
	more = len(changes) > announcersBatch
	for _, c := range changes[:min(len(changes), announcersBatch)] {
		if err := r.patch(ctx, c); err != nil {
			return more, err
		}
		r.written[c.vip.Name] = c.vip.ResourceVersion
		r.tell(events, c)
	}
	return more, nil
}

// changes are those that are this node's to write, the urgent ones first.
func (r *announcers) changes(n *network, nodes []announcer.Peer, speakers []*v1alpha1.BGPNode) (out []change) {
	known := map[string][]v1alpha1.Announcer{}
	writers := writersOf(nodes, speakers)
	for _, a := range n.Addresses {
		if announcer.First(writers, a.Address.Address) != r.node {
			continue
		}
		v, ok := r.cached(v1alpha1.VirtualIPName(a.Address.Address))
		if !ok || r.written[v.Name] == v.ResourceVersion {
			continue
		}
		delete(r.written, v.Name)
		// Most addresses of a pool are announced by the same nodes.
		key := fmt.Sprint(a.Pool, a.Local, a.Endpoints, a.Selected, a.Nodes)
		want, done := known[key]
		if !done {
			want = announcersOf(n.Pools[a.Pool], a, nodes, speakers)
			known[key] = want
		}
		if !slices.EqualFunc(want, v.Status.Announcers, func(a, b v1alpha1.Announcer) bool {
			return a.Node == b.Node && slices.Equal(a.Peers, b.Peers)
		}) {
			out = append(out, change{v, want})
		}
	}
	slices.SortStableFunc(out, func(a, b change) int { return cmp.Compare(rank(a.urgent()), rank(b.urgent())) })
	return out
}

func rank(urgent bool) int {
	if urgent {
		return 0
	}
	return 1
}

// writersOf are the live nodes that speak BGP, or did, sorted.
func writersOf(nodes []announcer.Peer, speakers []*v1alpha1.BGPNode) (out []string) {
	speaks := map[string]bool{}
	for _, s := range speakers {
		speaks[s.Name] = true
	}
	for _, p := range nodes {
		if p.Live && speaks[p.Name] {
			out = append(out, p.Name)
		}
	}
	return out
}

// audience are the peers that hear a node, of those that a pool is for; none given: all.
func audience(s *v1alpha1.BGPNode, of []string) (peers []string) {
	for _, x := range s.Status.Sessions {
		if x.State == bgp.StateEstablished && (len(of) == 0 || slices.Contains(of, x.Peer)) {
			peers = append(peers, x.Peer)
		}
	}
	return peers
}

// ableOf are self and the nodes that a peer of the pool hears. To others nobody must
// give way, however well they are: no router has anything of them.
func ableOf(nodes []announcer.Peer, self string, peers []string, speakers []*v1alpha1.BGPNode) []announcer.Peer {
	heard := map[string]bool{self: true}
	for _, s := range speakers {
		heard[s.Name] = heard[s.Name] || len(audience(s, peers)) > 0
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(p announcer.Peer) bool { return !heard[p.Name] })
}

// announcersOf are the nodes that may announce the address, and have a session with a
// peer that gets it.
func announcersOf(pool v1alpha1.BGPSpec, a pooled, nodes []announcer.Peer, speakers []*v1alpha1.BGPNode) []v1alpha1.Announcer {
	out := map[string]v1alpha1.Announcer{}
	able := ableOf(nodes, "", pool.Peers, speakers)
	for _, s := range speakers {
		peers := audience(s, pool.Peers)
		if len(peers) > 0 && announcer.Judge(able, s.Name, a.Subject()) == announcer.Announces {
			slices.Sort(peers)
			out[s.Name] = v1alpha1.Announcer{Node: s.Name, Peers: peers}
		}
	}
	var sorted []v1alpha1.Announcer
	for _, name := range slices.Sorted(maps.Keys(out)) {
		sorted = append(sorted, out[name])
	}
	return sorted
}

func (r *announcers) patch(ctx context.Context, c change) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"announcers": c.want}})
	if err != nil {
		return fmt.Errorf("announcers of virtual IP %s: %w", c.vip.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	_, err = r.vips.Patch(ctx, c.vip.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("announcers of virtual IP %s: %w", c.vip.Name, err)
	}
	return nil
}

// tell makes an event on the first Service when the first node announces the address,
// or none does any more.
func (r *announcers) tell(events record.EventRecorder, c change) {
	if !c.urgent() || len(c.vip.Spec.Services) == 0 {
		return
	}
	s := c.vip.Spec.Services[0]
	service := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: s.Namespace, Name: s.Name, UID: s.UID}
	if len(c.want) == 0 {
		events.Eventf(service, corev1.EventTypeWarning, ReasonBGPNotAnnounced,
			"No node announces address %s any more: see kubectl get bgpnodes for the sessions, and whether a node may (ready endpoints, node selectors)", c.vip.Spec.Address)
		return
	}
	var names []string
	for _, a := range c.want {
		names = append(names, a.Node)
	}
	events.Eventf(service, corev1.EventTypeNormal, ReasonBGPAnnounced, "Address %s is announced by %s", c.vip.Spec.Address, strings.Join(names, ", "))
}
