package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// Reasons of the events on BGPPeers.
const (
	// ReasonBGPSessionUp: a node has a session with the peer.
	ReasonBGPSessionUp = "BGPSessionUp"
	// ReasonBGPSessionDown: a node has no session with the peer any more.
	ReasonBGPSessionDown = "BGPSessionDown"
)

const (
	// bgpPace is the least time between two writes of a BGPNode.
	bgpPace = time.Second
	// numbersPace is that of writes in which only numbers differ. Each Service changes
	// them on all nodes, and all nodes read it.
	numbersPace = 30 * time.Second
)

// bgpStatus writes the BGPNode of this node, and events on its peers. Its other
// methods note what is to be written; Run writes, with retries.
type bgpStatus struct {
	node   string
	client client.BGPNodes
	events record.EventRecorder
	wake   chan struct{}

	mu       sync.Mutex // guards the rest
	speaker  *bgp.Speaker
	network  *network
	desired  *bgp.Desired
	problems []string

	// These belong to Run.
	written string          // as it was written last
	essence string          // of that, without numbers
	at      time.Time       // when
	up      map[string]bool // sessions of which an event was written, by the UID of the peer
}

func newBGPStatus(node string, c client.BGPNodes) *bgpStatus {
	return &bgpStatus{node: node, client: c, wake: make(chan struct{}, 1), up: map[string]bool{}}
}

func (s *bgpStatus) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// set takes in what is desired, and what is wrong with it.
func (s *bgpStatus) set(n *network, d *bgp.Desired, problems []string, speaker *bgp.Speaker) {
	s.mu.Lock()
	s.network, s.desired, s.problems, s.speaker = n, d, problems, speaker
	s.mu.Unlock()
	s.nudge()
}

// Run writes until ctx is done.
func (s *bgpStatus) Run(ctx context.Context, events record.EventRecorder) error {
	s.events = events
	numbers := time.NewTimer(numbersPace)
	defer numbers.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-numbers.C:
		}
		numbers.Reset(numbersPace + bgpPace)
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not write the BGPNode; trying again")
			s.nudge()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(bgpPace):
		}
	}
}

// write writes what differs from what was written last. A node that never had a
// peer has no BGPNode.
func (s *bgpStatus) write(ctx context.Context) error {
	s.mu.Lock()
	n, d, problems, speaker := s.network, s.desired, s.problems, s.speaker
	s.mu.Unlock()
	if n == nil || n.UID == "" || s.written == "" && len(d.Peers) == 0 {
		return nil
	}
	sessions := speaker.Sessions()
	s.tell(n, sessions)
	st := statusOf(d, sessions, problems)
	patch, err1 := json.Marshal(map[string]any{"status": st})
	essence, err2 := json.Marshal(withoutNumbers(st))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("BGPNode %s: %w", s.node, err)
	}
	if string(patch) == s.written || string(essence) == s.essence && time.Since(s.at) < numbersPace {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	err := s.patch(ctx, patch)
	if apierrors.IsNotFound(err) {
		if err = s.create(ctx, n); err == nil {
			err = s.patch(ctx, patch)
		}
	}
	if err != nil {
		return fmt.Errorf("BGPNode %s: %w", s.node, err)
	}
	s.written, s.essence, s.at = string(patch), string(essence), time.Now()
	return nil
}

func withoutNumbers(st v1alpha1.BGPNodeStatus) v1alpha1.BGPNodeStatus {
	st.Routes, st.Sessions = min(st.Routes, 1), slices.Clone(st.Sessions)
	for i := range st.Sessions {
		x := &st.Sessions[i]
		x.Announced, x.Received = min(x.Announced, 1), min(x.Received, 1)
	}
	return st
}

func (s *bgpStatus) patch(ctx context.Context, patch []byte) error {
	_, err := s.client.Patch(ctx, s.node, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// create makes the object, which goes with the Node.
func (s *bgpStatus) create(ctx context.Context, n *network) error {
	_, err := s.client.Create(ctx, &v1alpha1.BGPNode{ObjectMeta: metav1.ObjectMeta{
		Name:            s.node,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: s.node, UID: types.UID(n.UID)}},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func statusOf(d *bgp.Desired, sessions []bgp.Session, problems []string) v1alpha1.BGPNodeStatus {
	st := v1alpha1.BGPNodeStatus{
		ASN: int64(d.Global.ASN), Peers: int32(len(sessions)), Routes: int32(len(d.Routes)),
		Sessions: []v1alpha1.BGPSession{}, Problems: slices.Clone(problems),
	}
	if d.Global.RouterID.IsValid() {
		st.RouterID = d.Global.RouterID.String()
	}
	for _, x := range sessions {
		out := v1alpha1.BGPSession{
			Peer: x.Peer, Address: addressOf(x), State: x.State, Announced: int32(x.Announced), Received: int32(x.Received),
			GracefulRestart: x.Restart, BFD: x.BFD, LastError: x.LastError, Reason: string(x.Reason),
		}
		if x.IPv4 {
			out.Families = append(out.Families, v1alpha1.BGPFamilyIPv4)
		}
		if x.IPv6 {
			out.Families = append(out.Families, v1alpha1.BGPFamilyIPv6)
		}
		if x.HoldTime > 0 {
			out.HoldTime = &metav1.Duration{Duration: x.HoldTime}
		}
		if x.BFDProblem != "" {
			st.Problems = append(st.Problems, fmt.Sprintf("BGPPeer %s: %s", x.Peer, x.BFDProblem))
		}
		if !x.Since.IsZero() {
			out.Since = &metav1.Time{Time: x.Since.UTC().Truncate(time.Second)}
		}
		if x.Up() {
			st.Established++
		} else {
			// It comes and goes with each attempt, which is nothing to write about.
			out.State = "Idle"
		}
		st.Sessions = append(st.Sessions, out)
	}
	return st
}

// addressOf is the peer's address; empty while none is known.
func addressOf(x bgp.Session) string {
	if !x.Address.IsValid() {
		return ""
	}
	return x.Address.String()
}

// tell makes events of what changed since the last time.
func (s *bgpStatus) tell(n *network, sessions []bgp.Session) {
	uids := map[string]string{}
	for _, p := range n.Peers {
		uids[p.Name] = p.UID
	}
	now := map[string]bool{}
	for _, x := range sessions {
		uid := uids[x.Peer]
		if uid == "" {
			continue
		}
		now[uid] = x.Up()
		peer := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BGPPeer", Name: x.Peer, UID: types.UID(uid)}
		switch {
		case x.Up() && !s.up[uid]:
			s.events.Eventf(peer, corev1.EventTypeNormal, ReasonBGPSessionUp, "Node %q has a session with %s and announces %d routes", s.node, addressOf(x), x.Announced)
		case !x.Up() && s.up[uid]:
			s.events.Eventf(peer, corev1.EventTypeWarning, ReasonBGPSessionDown, "Node %q has no session with %s any more: %s", s.node, addressOf(x), x.LastError)
		}
	}
	s.up = now
}
