package member

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"k8s.io/klog/v2"
)

// observer is a group whose memberlist is the test.
type observer struct {
	*Group
	deaths []time.Duration
}

func observe(t *testing.T, test func(o *observer)) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, bytes.Repeat([]byte{7}, KeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		o := &observer{}
		g, err := New(Options{Name: "me", Port: 1, KeyFile: key, Logger: klog.Background(), Died: func(d time.Duration) { o.deaths = append(o.deaths, d) }})
		if err != nil {
			t.Fatal(err)
		}
		o.Group = g
		o.joins("me")
		o.joins("other")
		test(o)
	})
}

func (o *observer) joins(name string)  { delegate{o.Group}.NotifyJoin(&memberlist.Node{Name: name}) }
func (o *observer) leaves(name string) { delegate{o.Group}.NotifyLeave(&memberlist.Node{Name: name}) }

// run lets time pass with an agent that gets its turn.
func (o *observer) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		o.wakes()
		time.Sleep(min(gossipInterval, time.Until(end)))
	}
	o.wakes()
}

// wakes is the agent's turn.
func (o *observer) wakes() {
	delegate{o.Group}.GetBroadcasts(0, 1000)
	o.pulse(time.Now())
}

// sees is "live", "doubted" or "dead".
func (o *observer) sees() string {
	for _, m := range o.Members() {
		switch {
		case m.Name == "other" && m.Doubted:
			return "doubted"
		case m.Name == "other":
			return "live"
		}
	}
	return "dead"
}

func (o *observer) expect(t *testing.T, want, when string) {
	t.Helper()
	if got := o.sees(); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func TestDoubtThenDeath(t *testing.T) {
	observe(t, func(o *observer) {
		o.run(300 * time.Millisecond)
		o.leaves("other")
		o.expect(t, "doubted", "at once")
		o.run(900 * time.Millisecond)
		o.expect(t, "doubted", "for a while")
		if len(o.deaths) != 0 {
			t.Errorf("deaths %v", o.deaths)
		}
		o.run(200 * time.Millisecond)
		o.expect(t, "dead", "after that")
		if len(o.deaths) != 1 || o.deaths[0] != 300*time.Millisecond {
			t.Errorf("deaths %v", o.deaths)
		}
		o.joins("other")
		o.expect(t, "live", "when it is back")
	})
}

func TestDoubtThenAnswer(t *testing.T) {
	observe(t, func(o *observer) {
		o.run(300 * time.Millisecond)
		o.leaves("other")
		o.run(500 * time.Millisecond)
		o.heardOf("other") // a ping
		o.expect(t, "live", "after an answer")
		o.run(400 * time.Millisecond)
		o.expect(t, "doubted", "if none follows")
		o.joins("other")
		o.run(10 * time.Second)
		o.expect(t, "live", "after it has joined")
		if len(o.deaths) != 0 {
			t.Errorf("deaths %v", o.deaths)
		}
	})
}

// An agent that was itself not running must not conclude anything about others from
// what it has not heard meanwhile.
func TestStoodStillItself(t *testing.T) {
	for name, wake := range map[string]func(*observer){
		"memberlist wakes first": func(o *observer) { o.leaves("other"); o.wakes() },
		"it wakes first":         func(o *observer) { o.wakes(); o.leaves("other") },
		"a while ago":            func(o *observer) { o.run(300 * time.Millisecond); o.leaves("other") },
	} {
		observe(t, func(o *observer) {
			o.run(time.Second)
			time.Sleep(700 * time.Millisecond)
			wake(o)
			o.expect(t, "live", name+": at once")
			o.run(300 * time.Millisecond)
			o.expect(t, "live", name+": as long as it stood still")
			o.joins("other")
			o.run(10 * time.Second)
			o.expect(t, "live", name+": when it has heard the answer")
		})
		observe(t, func(o *observer) {
			o.run(time.Second)
			time.Sleep(700 * time.Millisecond)
			wake(o)
			o.run(1300 * time.Millisecond)
			o.expect(t, "doubted", name+": without an answer")
			o.run(2 * time.Second)
			o.expect(t, "dead", name+": in the end")
		})
	}
	observe(t, func(o *observer) { // it stands still while it doubts, over and over
		o.run(time.Second)
		o.leaves("other")
		for range 4 {
			time.Sleep(500 * time.Millisecond)
			o.wakes()
			o.expect(t, "doubted", "while it stands still again and again")
		}
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			o.wakes()
		}
		o.expect(t, "dead", "not for ever")
	})
}
