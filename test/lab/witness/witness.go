// Package witness watches an address from outside: who answers for it on the wire,
// and who has it according to the API server.
//
// Both watch until they are stopped or their context ends, and can be asked while
// they do. The wire is asked by broadcast, without the client's own ARP table, as by
// a client that hears of the address for the first time. A question that nobody
// answers, or an API server that does not, is part of what is watched and no error.
package witness

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// ErrNobody is the error of a question that nobody answered.
var ErrNobody = errors.New("nobody answered")

// Options of Watch.
type Options struct {
	Client  *lab.Host // asks
	Network string
	Address netip.Addr
	// Every is the time between two questions, and Limit how long answers are waited
	// for. An answer does not say which question it is for: with a Limit above Every,
	// a late one counts for the next question as well.
	Every, Limit time.Duration
}

// Wire is who answered for the address. Its methods may be called from several
// goroutines.
type Wire struct {
	*lab.Prober
	o Options

	mu      sync.Mutex // guards the rest
	last    string
	tries   []try
	answers []answer
	dual    []time.Time // questions that two answered
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

// Watch begins to ask. Stop ends it, as does ctx.
func Watch(ctx context.Context, o Options) *Wire {
	w := &Wire{o: o}
	w.Prober = lab.Probe(ctx, o.Every, w.ask)
	return w
}

func (w *Wire) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.o.Limit)
	defer cancel()
	begin := time.Now()
	found, err := w.o.Client.WhoHas(ctx, w.o.Network, w.o.Address)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries = append(w.tries, try{begin, len(found) > 0})
	if len(found) == 0 {
		return ErrNobody
	}
	if len(found) > 1 {
		w.dual = append(w.dual, begin)
	}
	for _, r := range found {
		w.last = r.MAC.String()
		w.answers = append(w.answers, answer{begin.Add(r.After), w.last})
	}
	return nil
}

// Last is the hardware address that answered last, empty before the first answer.
func (w *Wire) Last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Outage is the longest time in which no question was answered: the number of
// questions, since the machine that runs all this may stand still for a while.
func (w *Wire) Outage() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.tries, func(a, b try) int { return a.at.Compare(b.at) })
	longest, row := 0, 0
	for _, t := range w.tries {
		if row++; t.ok {
			row = 0
		}
		longest = max(longest, row)
	}
	return time.Duration(longest) * w.o.Every
}

// Overlap is the time from the first answer of the one machine to the last of the
// other one; negative: they never answered at the same time.
func (w *Wire) Overlap(next, before string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var first, last time.Time
	for _, a := range w.answers {
		if a.mac == next && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
		if a.mac == before && a.at.After(last) {
			last = a.at
		}
	}
	return last.Sub(first)
}

// Others are the machines that answered besides these.
func (w *Wire) Others(known ...string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, a := range w.answers {
		if !slices.Contains(known, a.mac) && !slices.Contains(out, a.mac) {
			out = append(out, a.mac)
		}
	}
	return out
}

// Changes is how often an answer came from another machine than the one before it:
// one for a clean move, many if two answer at the same time.
func (w *Wire) Changes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sortLocked()
	n := 0
	for i := 1; i < len(w.answers); i++ {
		if w.answers[i].mac != w.answers[i-1].mac {
			n++
		}
	}
	return n
}

// Moves is how often clients went to another machine: who gave most of the answers
// of a second, compared with the second before. Late answers over a slow link do
// not count, and neither does a meeting of two holders.
func (w *Wire) Moves() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sortLocked()
	n, last := 0, ""
	for i := 0; i < len(w.answers); {
		end, count := w.answers[i].at.Add(time.Second), map[string]int{}
		for ; i < len(w.answers) && w.answers[i].at.Before(end); i++ {
			count[w.answers[i].mac]++
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

func (w *Wire) sortLocked() {
	slices.SortFunc(w.answers, func(a, b answer) int { return a.at.Compare(b.at) })
}

// Dual is the number of questions that two or more machines answered.
func (w *Wire) Dual() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dual)
}

// DualUntil is when two answered for the last time; zero: never.
func (w *Wire) DualUntil() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dual) == 0 {
		return time.Time{}
	}
	return slices.MaxFunc(w.dual, time.Time.Compare)
}
