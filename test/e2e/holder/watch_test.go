package holder_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/witness"
)

const (
	whoHasEvery = 20 * time.Millisecond
	// whoHasLimit is how long an answer is waited for.
	whoHasLimit = 60 * time.Millisecond
)

// watch asks the wire for the address all the time, and the API server who it
// thinks has it.
type watch struct {
	*witness.Wire
	record *witness.Record
}

func (w *world) watch(a netip.Addr) *watch {
	x := &watch{
		Wire: witness.Watch(w.t.Context(), witness.Options{
			Client: w.LAN(), Network: lab.Private, Address: a, Every: whoHasEvery, Limit: whoHasLimit,
		}),
		record: witness.Read(w.t.Context(), w.onelb.VirtualIPs(), a),
	}
	w.t.Cleanup(x.record.Stop)
	w.must(x.WaitAnswer(w.t.Context()))
	return x
}

// otherThan checks that another node answered last.
func (x *watch) otherThan(n *lab.Node) error {
	if got := x.Last(); got == mac(n) || got == "" {
		return witness.ErrNobody
	}
	return nil
}

// end stops the watch and reports what it saw.
func (x *watch) end(t *testing.T) {
	t.Helper()
	r := x.Stop()
	x.record.Stop()
	t.Logf("longest outage %v; who-has: %v; changes of who answers: %d; two answered %d questions", x.Outage(), r, x.Changes(), x.Dual())
	for _, h := range x.record.Holders() {
		t.Logf("the API server knew: %s, epoch %d, since %s", h.Name, h.Epoch, h.Since.Format("15:04:05.000"))
	}
}
