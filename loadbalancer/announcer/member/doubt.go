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
	// gossipInterval is how often memberlist asks for what is to be told.
	gossipInterval = 50 * time.Millisecond
	// stallMin is how late that must be for this agent to have stood still.
	stallMin = 100 * time.Millisecond
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
	g.lives(now)
	from := now
	if now.Sub(g.late.end) < stallMemory {
		from = now.Add(g.late.length)
	}
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

// lives notes that this agent gets its turn. memberlist calls often enough to tell
// when it did not, without a timer of our own: each is a wakeup of an idle agent. What
// others have said meanwhile has not been read. The caller holds the lock.
func (g *Group) lives(now time.Time) {
	late := min(now.Sub(g.beat)-gossipInterval, stallMax)
	if !g.beat.IsZero() && late >= stallMin {
		g.late = stall{end: now, length: late}
		for name, d := range g.unsure {
			d.until = d.until.Add(late)
			if !d.told {
				d.from = d.from.Add(late)
			}
			g.unsure[name] = d
		}
	}
	g.beat = now
}

func (g *Group) turn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lives(time.Now())
}

// pulse ends doubts: who has not answered meanwhile is dead. Run calls it once in a
// tick while there are any.
func (g *Group) pulse(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.unsure) == 0 {
		return // Run may have nothing to do for long
	}
	g.lives(now)
	for name, d := range g.unsure {
		if !d.told && !now.Before(d.from) {
			d.told = true
			g.unsure[name] = d
			g.notify()
		}
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
