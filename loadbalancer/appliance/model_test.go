package appliance

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// history is what happens to the Services of an appliance, in steps.
func history() []router.Document {
	return []router.Document{
		document([]uint16{80}),
		document([]uint16{80, 443}, []uint16{25}),
		document(nil, []uint16{25}, []uint16{53}),
		{},
		document([]uint16{8080}),
	}
}

// TestCrashAnywhere ends the program at each call, before or after OpenNebula has
// done it, at each step of the history, and has a new leader go on: in the end all
// instances have what the last document says, and nobody else's variables have changed.
func TestCrashAnywhere(t *testing.T) {
	for last := range history() {
		for _, after := range []bool{false, true} {
			points := 0
			for at := 1; ; at++ {
				reached := true
				synctest.Test(t, func(t *testing.T) { reached = crash(t, last, at, after) })
				if !reached || t.Failed() {
					break
				}
				points++
			}
			if points < 5 {
				t.Errorf("step %d: %d points", last, points)
			}
		}
	}
}

// crash ends the program at a call of the last step. It reports whether there was one.
func crash(t *testing.T, last, at int, after bool) (reached bool) {
	f := newFakeOne(t)
	steps := history()[:last+1]
	c, stop := start(t, options(f))
	for _, d := range steps[:last] {
		c.Set(d)
		eventually(t, "all current", current(c))
	}
	f.mu.Lock()
	first := f.calls
	f.stop = func(call int, now bool) bool {
		if call > first+at {
			return true // what had been called has ended: nothing more is done
		}
		if call == first+at && now == after {
			reached = true
		}
		return reached
	}
	f.mu.Unlock()
	c.Set(steps[last])
	time.Sleep(20 * time.Second)
	stop()

	f.mu.Lock()
	f.stop = nil
	f.mu.Unlock()
	o := options(f)
	o.Token = 2
	c, stop = start(t, o)
	defer stop()
	c.Set(steps[last])
	eventually(t, "the next leader has finished", current(c))
	time.Sleep(time.Minute)
	want, also := wanted(o, steps[last]), wanted(options(f), steps[last]) // written by the second or the first leader
	for _, id := range []int{3, 4} {
		if got := f.ours(id); got != want && got != also {
			t.Errorf("step %d, call %d, after=%v: VM %d has\n%swant\n%s", last, at, after, id, got, want)
		}
	}
	return reached
}

// TestErrorsAnywhere has each call fail once, before or after it is done, while the
// program goes on.
func TestErrorsAnywhere(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := range 40 {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeOne(t)
				f.stop = func(call int, now bool) bool { return call == at && now == after }
				c, stop := start(t, options(f))
				defer stop()
				for i, d := range history() {
					generation := c.Set(d)
					ctx, cancel := context.WithCancel(context.Background())
					for c.Wait(ctx, generation) != nil {
						time.Sleep(time.Second)
					}
					cancel()
					eventually(t, fmt.Sprintf("step %d is done", i), func() bool {
						return f.ours(3) == wanted(options(f), d) && f.ours(4) == f.ours(3)
					})
				}
			})
		}
	}
}
