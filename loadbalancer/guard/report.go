package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Reasons of conditions and events.
const (
	// ReasonNodesFiltered: NICs of nodes drop what is sent from addresses of the pool.
	ReasonNodesFiltered = "NodesFiltered"
	// ReasonNetworkFiltered: the network has the filter, and no node a NIC in it that could be looked at.
	ReasonNetworkFiltered = "NetworkFiltered"
	// ReasonNoFilter: nothing drops what nodes send from addresses of the pool.
	ReasonNoFilter = "NoFilter"
	// ReasonGuarded: the filter is on, and the pool's guard gets its addresses past it.
	ReasonGuarded = "Guarded"
	// ReasonGuardAttached: each address is attached to all of its candidates.
	ReasonGuardAttached = "Attached"
	// ReasonGuardAttaching: addresses are being attached; one without any candidate that is attached is held by nobody.
	ReasonGuardAttaching = "Attaching"
	// ReasonGuardNoNodes: no node can be a candidate.
	ReasonGuardNoNodes = "NoNodes"
	// ReasonGuardFailing: OpenNebula does not attach or detach an alias.
	ReasonGuardFailing = "HotplugFailing"
	// ReasonSpoofingFilter: OpenNebula has begun to drop what nodes send from addresses of the pool.
	ReasonSpoofingFilter = "SpoofingFilter"
	// ReasonSpoofingFilterEnded: it does so no more.
	ReasonSpoofingFilterEnded = "SpoofingFilterEnded"
	// ReasonGuardFailed: the pool's addresses cannot be attached to nodes; the message says why and what to do.
	ReasonGuardFailed = "GuardFailed"
	// ReasonGuardRecovered: they can again.
	ReasonGuardRecovered = "GuardRecovered"
)

// reported is what a pool was told last.
type reported struct {
	conditions []metav1.Condition
	at         time.Time
}

// reportGap is the least time between two reports that differ in numbers only.
const reportGap = 10 * time.Second

// report tells about each pool what has changed.
func (c *Controller) report(w *world) {
	for _, p := range w.pools {
		conditions := []metav1.Condition{w.filter(p)}
		if p.Guarded {
			conditions = append(conditions, c.guardCondition(w, p))
		}
		old, again := c.reported[p.Name]
		if !again {
			old = reported{conditions: p.Conditions}
		}
		changed := false
		for _, n := range conditions {
			was := apimeta.FindStatusCondition(old.conditions, n.Type)
			changed = changed || was == nil || was.Status != n.Status || was.Reason != n.Reason ||
				was.Message != n.Message && time.Since(old.at) > reportGap
			c.transition(p, was, n)
		}
		if changed || !again {
			c.reported[p.Name] = reported{conditions: conditions, at: time.Now()}
			c.o.Report(p.Name, conditions)
		}
	}
	for name := range c.reported {
		if _, ok := w.pool(name); !ok {
			delete(c.reported, name)
		}
	}
}

// transition sends an event if the condition means something else than before.
func (c *Controller) transition(p Pool, was *metav1.Condition, is metav1.Condition) {
	bad := func(n metav1.Condition) bool {
		if n.Type == v1alpha1.PoolSpoofingFilter {
			return n.Status == metav1.ConditionTrue
		}
		return n.Reason == ReasonGuardFailing || n.Reason == ReasonGuardNoNodes
	}
	before := was != nil && bad(*was)
	if before == bad(is) {
		return
	}
	e := ipam.Event{Pool: p.Name, Type: ipam.EventWarning, Message: is.Message}
	switch {
	case is.Type == v1alpha1.PoolSpoofingFilter && before:
		e.Type, e.Reason = ipam.EventNormal, ReasonSpoofingFilterEnded
	case is.Type == v1alpha1.PoolSpoofingFilter:
		e.Reason = ReasonSpoofingFilter
	case before:
		e.Type, e.Reason = ipam.EventNormal, ReasonGuardRecovered
	default:
		e.Reason = ReasonGuardFailed
	}
	c.o.OnEvent(e)
}

const whatToDoRouted = ": have FILTER_IP_SPOOFING turned off for the nodes' own network in OpenNebula and attach the NICs of the nodes anew, since a NIC keeps what it was attached with; " +
	"or choose another spec.router.forward, with which the nodes send from their own addresses"

const whatToDo = `: either have FILTER_IP_SPOOFING turned off for the network in OpenNebula and attach the NICs of the nodes anew, since a NIC keeps what it was attached with; ` +
	`or make a pool with spec.l2.guard: alias on a range with SHARED="YES" and move the Services to it`

// filter is the condition SpoofingFilter of a pool.
func (w *world) filter(p Pool) metav1.Condition {
	var nodes []string
	seen := 0
	for _, m := range w.members {
		if n, ok := m.sender(p); ok {
			seen++
			if n.Filtered {
				nodes = append(nodes, m.name)
			}
		}
	}
	n := metav1.Condition{Type: v1alpha1.PoolSpoofingFilter, ObservedGeneration: p.Generation}
	switch {
	case p.Guarded && (len(nodes) > 0 || p.Filtered):
		n.Status, n.Reason = metav1.ConditionFalse, ReasonGuarded
		n.Message = "OpenNebula filters by source address (FILTER_IP_SPOOFING); the addresses are aliases of the nodes' NICs, which pass"
	case len(nodes) > 0:
		n.Status, n.Reason = metav1.ConditionTrue, ReasonNodesFiltered
		what := whatToDo
		if p.Routed {
			what = whatToDoRouted
		}
		n.Message = fmt.Sprintf("OpenNebula drops what %s send from addresses of the pool (FILTER_IP_SPOOFING on their NICs)%s", some(nodes), what)
	case p.Filtered && seen == 0:
		n.Status, n.Reason = metav1.ConditionTrue, ReasonNetworkFiltered
		n.Message = "The network filters by source address (FILTER_IP_SPOOFING): OpenNebula drops what nodes with a NIC in it send from addresses of the pool" + whatToDo
	default:
		n.Status, n.Reason, n.Message = metav1.ConditionFalse, ReasonNoFilter, "OpenNebula does not filter what the nodes send by source address; security groups were not looked at"
	}
	v := 0.0
	if n.Status == metav1.ConditionTrue {
		v = 1
	}
	poolFiltered.WithLabelValues(p.Name).Set(v)
	return n
}

// some names a few, and counts the others.
func some(names []string) string {
	const most = 5
	slices.Sort(names)
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
}

// guardCondition is the condition Guarded of a pool.
func (c *Controller) guardCondition(w *world, p Pool) metav1.Condition {
	n := metav1.Condition{Type: v1alpha1.PoolGuarded, Status: metav1.ConditionFalse, ObservedGeneration: p.Generation}
	total, done, without := w.tally(p)
	ready := 0
	for _, k := range w.nodesOf(p) {
		if k.ready {
			ready++
		}
	}
	failing := c.failing(w, p)
	switch {
	case failing != "":
		n.Reason, n.Message = ReasonGuardFailing, failing
	case ready == 0 && total > 0:
		n.Reason, n.Message = ReasonGuardNoNodes, fmt.Sprintf(
			"no node can be given addresses of the pool: a node needs a running virtual machine that our OpenNebula user can see, with a NIC in network %d", p.Network)
	case done < total:
		n.Reason, n.Message = ReasonGuardAttaching, fmt.Sprintf("%d of %d addresses are attached to all of their candidates, %d to none yet", done, total, without)
	default:
		n.Status, n.Reason, n.Message = metav1.ConditionTrue, ReasonGuardAttached, "each address is attached to all of its candidates"
	}
	return n
}

// tally counts a pool's addresses, those that are attached to all of their
// candidates, and those that are attached to none.
func (w *world) tally(p Pool) (total, done, without int) {
	states := map[v1alpha1.CandidateState]int{v1alpha1.CandidateAttached: 0, v1alpha1.CandidateAttaching: 0, v1alpha1.CandidateDetaching: 0}
	for _, v := range w.of {
		if v.Spec.Pool != p.Name {
			continue
		}
		total++
		pending, attached := 0, 0
		for _, k := range v.Spec.Guard.Candidates {
			states[k.State]++
			switch k.State {
			case v1alpha1.CandidateAttached:
				attached++
			case v1alpha1.CandidateAttaching:
				pending++
			case v1alpha1.CandidateDetaching:
			}
		}
		if pending == 0 {
			done++
		}
		if attached == 0 {
			without++
		}
	}
	for state, n := range states {
		candidates.WithLabelValues(p.Name, string(state)).Set(float64(n))
	}
	return total, done, without
}

// failing describes the machine that has failed most often, empty if none has
// failed too often to be chance.
func (c *Controller) failing(w *world, p Pool) string {
	worst, times := -1, tooManyFailures-1
	for id, k := range c.work {
		concerned := slices.ContainsFunc(w.on[id], func(a netip.Addr) bool { return w.of[a].Spec.Pool == p.Name })
		if k.err != nil && concerned && (k.wait.failures > times || k.wait.failures == times && worst >= 0 && id < worst) {
			worst, times = id, k.wait.failures
		}
	}
	if worst < 0 {
		return ""
	}
	return fmt.Sprintf("virtual machine %d (state %s) failed %d times: %v%s", worst, c.stateOf(worst), times, c.work[worst].err, advice(c.work[worst].err))
}

func (c *Controller) stateOf(id int) string {
	if m := c.machine(id); m != nil {
		return m.State
	}
	return "unknown"
}
