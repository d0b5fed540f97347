package announcer

import (
	"testing"
	"time"
)

func TestDamper(t *testing.T) {
	now := time.Unix(1000, 0)
	var d damper
	expect := func(wait time.Duration) {
		t.Helper()
		want := time.Time{}
		if wait > 0 {
			want = now.Add(wait)
		}
		if got := d.settledAt(); !got.Equal(want) {
			t.Errorf("settled at %v, want %v", got, want)
		}
	}
	see := func(returned bool, others ...string) {
		t.Helper()
		if got := d.observe(others, now); got != returned {
			t.Errorf("somebody returned: %v", got)
		}
	}
	see(false)
	expect(0) // alone from the start: there is nobody better
	see(false, "b")
	expect(0) // b came, not this node
	now = now.Add(time.Minute)
	see(false)
	now = now.Add(time.Second)
	see(true, "b")
	expect(10 * time.Second) // the only other one went and came: this node was cut off
	for _, want := range []time.Duration{20, 40, 80, 160, 300, 300} {
		now = now.Add(3 * time.Second)
		see(false)
		now = now.Add(3 * time.Second)
		see(true, "b")
		expect(want * time.Second)
	}
	now = now.Add(time.Hour)
	see(false)
	see(true, "b")
	expect(10 * time.Second) // forgiven
}

func TestDamperOfOneOfMany(t *testing.T) {
	now := time.Unix(1000, 0)
	var d damper
	d.observe([]string{"b", "c"}, now)
	if got := d.settledAt(); !got.Equal(now.Add(settleTime)) {
		t.Errorf("a new one among others is settled at %v", got)
	}
	d = damper{}
	d.observe(nil, now)
	d.observe([]string{"b", "c"}, now)
	d.observe([]string{"b"}, now)
	if !d.observe([]string{"b", "c"}, now) {
		t.Error("c's return was not noticed")
	}
	if !d.settledAt().IsZero() {
		t.Error("c's return was taken for ours")
	}
}
