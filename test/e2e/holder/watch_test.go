package holder_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

const (
	whoHasEvery = 20 * time.Millisecond
	// whoHasLimit is how long an answer is waited for.
	whoHasLimit = 60 * time.Millisecond
)

// watch asks the wire for the address all the time, and the API server who it
// thinks has it.
type watch struct {
	*lab.Prober
	last atomic.Value // string: the hardware address that answered last
	stop func()

	mu      sync.Mutex // guards the rest
	tries   []try
	answers []answer
	dual    []time.Time // questions that two answered
	holders []v1alpha1.Holder
}

// try is a question, and whether anybody answered it.
type try struct {
	at time.Time
	ok bool
}

type answer struct {
	at  time.Time
	mac string
}

func (w *world) watch(a netip.Addr) *watch {
	x := &watch{}
	x.last.Store("")
	x.Prober = lab.Probe(w.t.Context(), whoHasEvery, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, whoHasLimit)
		defer cancel()
		begin := time.Now()
		found, err := w.LAN().WhoHas(ctx, lab.Private, a)
		if err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.tries = append(x.tries, try{begin, len(found) > 0})
		if len(found) == 0 {
			return errNobody
		}
		if len(found) > 1 {
			x.dual = append(x.dual, begin)
		}
		for _, r := range found {
			x.answers = append(x.answers, answer{begin.Add(r.After), r.MAC.String()})
			x.last.Store(r.MAC.String())
		}
		return nil
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	var polling sync.WaitGroup
	polling.Go(func() { x.poll(ctx, w.onelb, v1alpha1.VirtualIPName(a)) })
	x.stop = func() { cancel(); polling.Wait() }
	w.t.Cleanup(x.stop)
	w.must(x.WaitAnswer(w.t.Context()))
	return x
}

// poll notes the holders that the API server names, while it answers.
func (x *watch) poll(ctx context.Context, c client.Interface, name string) {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, time.Second)
		v, err := c.VirtualIPs().Get(try, name, metav1.GetOptions{})
		cancel()
		if err == nil && v.Status.Holder != nil {
			x.mu.Lock()
			if n := len(x.holders); n == 0 || x.holders[n-1].Name != v.Status.Holder.Name || x.holders[n-1].Epoch != v.Status.Holder.Epoch {
				x.holders = append(x.holders, *v.Status.Holder)
			}
			x.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// outage is the longest time in which no question was answered: the number of
// questions, since the machine that runs all this may stand still for a while.
func (x *watch) outage() time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortFunc(x.tries, func(a, b try) int { return a.at.Compare(b.at) })
	longest, row := 0, 0
	for _, t := range x.tries {
		if row++; t.ok {
			row = 0
		}
		longest = max(longest, row)
	}
	return time.Duration(longest) * whoHasEvery
}

// overlap is the time from the first answer of the one machine to the last of the
// other one; negative: they never answered at the same time.
func (x *watch) overlap(next, before string) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	var first, last time.Time
	for _, a := range x.answers {
		if a.mac == next && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
		if a.mac == before && a.at.After(last) {
			last = a.at
		}
	}
	return last.Sub(first)
}

// others are the machines that answered besides these.
func (x *watch) others(known ...string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []string
	for _, a := range x.answers {
		if !slices.Contains(known, a.mac) && !slices.Contains(out, a.mac) {
			out = append(out, a.mac)
		}
	}
	return out
}

// changes is how often an answer came from another machine than the one before it:
// one for a clean move, many if two answer at the same time.
func (x *watch) changes() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortFunc(x.answers, func(a, b answer) int { return a.at.Compare(b.at) })
	n := 0
	for i := 1; i < len(x.answers); i++ {
		if x.answers[i].mac != x.answers[i-1].mac {
			n++
		}
	}
	return n
}

// moves is how often clients went to another machine: who gave most of the answers
// of a second, compared with the second before. Late answers over a slow link do
// not count, and neither does a meeting of two holders.
func (x *watch) moves() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.SortFunc(x.answers, func(a, b answer) int { return a.at.Compare(b.at) })
	n, last := 0, ""
	for i := 0; i < len(x.answers); {
		end, count := x.answers[i].at.Add(time.Second), map[string]int{}
		for ; i < len(x.answers) && x.answers[i].at.Before(end); i++ {
			count[x.answers[i].mac]++
		}
		most := last
		for mac, c := range count {
			if c > count[most] {
				most = mac
			}
		}
		if last != "" && most != last {
			n++
		}
		last = most
	}
	return n
}

// known are the changes of the holder that the API server knew of.
func (x *watch) known() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for i := 1; i < len(x.holders); i++ {
		if x.holders[i].Name != x.holders[i-1].Name {
			n++
		}
	}
	return n
}

// bothUntil is when two answered for the last time; zero: never.
func (x *watch) bothUntil() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.dual) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(x.dual, time.Time.Compare)
}

// end stops the watch and reports what it saw.
func (x *watch) end(t *testing.T) {
	t.Helper()
	r, changes, outage := x.Stop(), x.changes(), x.outage()
	x.stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	t.Logf("longest outage %v; who-has: %v; changes of who answers: %d; two answered %d questions", outage, r, changes, len(x.dual))
	for _, h := range x.holders {
		t.Logf("the API server knew: %s, epoch %d, since %s", h.Name, h.Epoch, h.Since.Format("15:04:05.000"))
	}
}
