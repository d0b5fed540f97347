package member

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. Its methods must not block and must not
// call memberlist.
type delegate struct{ g *Group }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
	_ memberlist.PingDelegate  = delegate{}
)

// Bits of NodeMeta's first byte. An agent ignores those that it does not know.
const (
	metaSettled = 1 << iota
	metaUnwell
	metaDamped
)

func (s State) encode() []byte {
	var b byte
	if s.Settled {
		b |= metaSettled
	}
	if s.Unwell {
		b |= metaUnwell
	}
	if s.Damped {
		b |= metaDamped
	}
	return append([]byte{b}, s.MACs[:min(len(s.MACs), 6*maxMACs)]...)
}

func decodeState(b []byte) State {
	if len(b) == 0 {
		return State{}
	}
	return State{Settled: b[0]&metaSettled != 0, Unwell: b[0]&metaUnwell != 0, Damped: b[0]&metaDamped != 0, MACs: string(b[1:])}
}

// NodeMeta is the agent's State: a byte and the hardware addresses.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.told = d.g.state
	return d.g.state.encode()
}

func (d delegate) NotifyMsg(b []byte) { d.receive(b) }

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	d.g.turn()
	return d.g.queue.GetBroadcasts(overhead, limit)
}

func (d delegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	claims := make([]Claim, 0, len(d.g.claims))
	for _, c := range d.g.claims {
		claims = append(claims, c)
	}
	slices.SortFunc(claims, Claim.compare)
	return Encode(claims...)
}

func (d delegate) MergeRemoteState(b []byte, _ bool) { d.receive(b) }

func (d delegate) receive(b []byte) {
	claims, err := Decode(b)
	if err != nil {
		d.g.logger.V(2).Info("Ignored a gossip message", "err", err)
		return
	}
	d.g.merge(claims, true)
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.NotifyUpdate(n)
	d.NotifyPingComplete(n, 0, nil)
}

// AckPayload is what answers to pings carry besides: nothing.
func (delegate) AckPayload() []byte { return nil }

func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.answered(n.Name, time.Now())
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.live[n.Name] = decodeState(n.Meta)
	delete(d.g.unsure, n.Name)
	d.g.notify()
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.doubt(n.Name, time.Now())
}

// broadcast spreads one claim until enough members have it or a newer claim for
// the address takes its place.
type broadcast struct {
	key     key
	message []byte
}

var _ memberlist.NamedBroadcast = broadcast{}

func (b broadcast) Name() string { return fmt.Sprint(b.key.address, b.key.standIn) }

func (b broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(broadcast)
	return ok && o.key == b.key
}

func (b broadcast) Message() []byte { return b.message }

func (broadcast) Finished() {}
