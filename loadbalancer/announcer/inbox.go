package announcer

import (
	"sync"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// inboxMax bounds what waits to be heard: thousands of addresses are asked for and
// answered at once, and an answer that is lost looks like silence.
const inboxMax = 50000

// heard is something that another host said.
type heard struct {
	wire.Sighting
	asks bool // it asks for the address, else it claims it
}

// inbox is what the wire has handed over and the Engine has not looked at.
type inbox struct {
	wake chan struct{}

	mu   sync.Mutex // guards the rest
	list []heard
	lost bool
}

func newInbox() inbox { return inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) put(h heard) {
	b.mu.Lock()
	if len(b.list) < inboxMax {
		b.list = append(b.list, h)
	} else {
		b.lost = true
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (b *inbox) take() (list []heard, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list, lost = b.list, b.lost
	b.list, b.lost = nil, false
	return list, lost
}

// Sighted hands over a claim of another host.
func (e *Engine) Sighted(s wire.Sighting) { e.overhear(heard{Sighting: s}) }

// Asked hands over a question of another host that everybody has heard.
func (e *Engine) Asked(s wire.Sighting) { e.overhear(heard{Sighting: s, asks: true}) }

func (e *Engine) overhear(h heard) {
	if _, ok := e.interest.Load(h.Address); ok {
		e.inbox.put(h)
	}
}

// hear takes in what other hosts have said, and reports whether a step must follow
// at once: with each of thousands of answers it would take all the time there is.
func (e *Engine) hear(now time.Time) bool {
	list, lost := e.inbox.take()
	for _, h := range list {
		if h.asks {
			e.rival(h.Sighting, now)
		} else {
			e.sight(h.Sighting, now)
		}
	}
	if lost {
		e.missed()
	}
	e.read = now
	return e.dirty || e.heldDirty || e.urgent
}
