package member

import "time"

// memberlist takes another agent for dead after some 0.35 s without an answer. On a
// machine with too little processor time that is often wrong, and as often it is the
// observer that stood still and has not read the answers. So such an agent is doubted
// first. The wire is asked for its addresses at once, which finds a node that is gone
// as fast as ever; but it stays a candidate, and is not counted among those that come
// and go, until it has been silent for doubtTime more.
const (
	doubtTime = time.Second
	// trustTime is how long an answer to a ping counts that memberlist did not hear.
	trustTime = 300 * time.Millisecond
	// stallMin is how late Run must be for this agent to have stood still.
	stallMin = tick / 2
	// stallMemory is how long that may be the reason for a doubt: a death follows
	// half a second after the answer that was missed.
	stallMemory = 500 * time.Millisecond
	// stallMax bounds what is added to a doubt.
	stallMax = time.Second
)

// doubt is about an agent that memberlist takes for dead.
type doubt struct {
	from    time.Time // it is told from then on
	until   time.Time // it is dead then
	told    bool
	silence time.Duration // before
}

// stall is a time for which this agent stood still.
type stall struct {
	end    time.Time
	length time.Duration
}

// doubt begins to doubt an agent; later, if this one stood still itself, by as much.
// The caller holds the lock.
func (g *Group) doubt(name string, now time.Time) {
	if _, live := g.live[name]; !live {
		return
	}
	from := now.Add(g.stalled(now))
	d := doubt{from: from, until: from.Add(doubtTime)}
	if heard, ok := g.heard[name]; ok {
		d.silence = now.Sub(heard)
	}
	g.unsure[name] = d
	g.doubts()
	wake(g.kick) // it is asked at once
	g.notify()
}

// doubted reports whether the agent's life is in doubt. The caller holds the lock.
func (g *Group) doubted(name string) bool {
	d, ok := g.unsure[name]
	return ok && !time.Now().Before(d.from)
}

// answered notes that a live agent has answered a ping. The caller holds the lock.
func (g *Group) answered(name string, now time.Time) {
	if _, live := g.live[name]; !live {
		return
	}
	g.heard[name] = now
	if d, ok := g.unsure[name]; ok && d.from.Before(now.Add(trustTime)) {
		d.from, d.until, d.told = now.Add(trustTime), now.Add(trustTime+doubtTime), false
		g.unsure[name] = d
		g.notify()
	}
}

func (g *Group) heardOf(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered(name, time.Now())
}

// stalled is how long this agent has stood still just now. The caller holds the lock.
func (g *Group) stalled(now time.Time) time.Duration {
	length := time.Duration(0)
	if late := now.Sub(g.beat) - tick; !g.beat.IsZero() && late >= stallMin {
		length = late
	}
	if now.Sub(g.late.end) < stallMemory {
		length = max(length, g.late.length)
	}
	return min(length, stallMax)
}

// pulse is called by Run at least once in a tick, unless it stands still. It ends
// doubts: who has not answered meanwhile is dead.
func (g *Group) pulse(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	late := now.Sub(g.beat) - tick
	if !g.beat.IsZero() && late >= stallMin {
		g.late = stall{end: now, length: min(late, stallMax)}
	}
	g.beat = now
	for name, d := range g.unsure {
		if late >= stallMin { // the answers of that time have not been read
			d.until = d.until.Add(g.late.length)
			if !d.told {
				d.from = d.from.Add(g.late.length)
			}
		}
		if !d.told && !now.Before(d.from) {
			d.told = true
			g.notify()
		}
		g.unsure[name] = d
		if now.Before(d.until) {
			continue
		}
		if name != g.name {
			g.died(d.silence)
		}
		delete(g.live, name)
		delete(g.heard, name)
		delete(g.unsure, name)
		g.notify()
	}
}
