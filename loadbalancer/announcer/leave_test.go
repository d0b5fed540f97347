package announcer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

func TestHandsOverBeforeItLeaves(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		expect(t, w, true, "at first")
		ended := make(chan struct{})
		go func() {
			w.HandOver(w.t.Context())
			close(ended)
		}()
		after(time.Second)
		expect(t, w, true, "until another one has it")
		w.mu.Lock()
		if !w.state.Unwell {
			t.Error("the others are not asked to take it")
		}
		w.mu.Unlock()
		select {
		case <-ended:
			t.Error("it leaves with an address that nobody else has")
		default:
		}
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
		synctest.Wait()
		<-ended
		expect(t, w, false, "when the successor announces itself")
	})
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		ctx, cancel := context.WithCancel(w.t.Context())
		go func() {
			time.Sleep(5 * time.Second)
			cancel()
		}()
		began := time.Now()
		w.HandOver(ctx)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("waited %v for others that are not there", took)
		}
		expect(t, w, true, "there is nobody else")
		w.stop()
		after(life)
		expect(t, w, true, "it is left to the kernel")
	})
}

// Who relieves a live holder has a lasting claim, however short it has been there: the
// holder's would count beside that of a stand-in, and it would be relieved in turn.
func TestRelievesForGood(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other"); w.members[1].Unwell = true }, func(w *world) {
		w.SetCluster(wanted(theirs))
		after(announcer.HandOverDelay + time.Millisecond)
		expect(t, w, true, "the holder says that it is unwell")
		if c := w.lastClaim(); c.StandIn || c.Node != "me" || c.Epoch != 6 {
			t.Errorf("claimed %+v", c)
		}
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index}) // the holder's last answer
		after(time.Second)
		expect(t, w, true, "the holder answers once more")
	})
}

// The agent hands over and ends, while its node lives on: another node answers at
// once, and somebody does all the time.
func TestAgentHandsOverAndEnds(t *testing.T) {
	l := newLAN(t)
	var hosts []*host
	var agents []*agent
	for range 3 {
		h := l.host()
		hosts = append(hosts, h)
		agents = append(agents, h.start(nil, lasting))
	}
	client := l.host()
	set(agents, cluster(hosts, vip4))
	eventually(t, "it is held", func() bool { return len(holders(hosts, vip4)) == 1 })
	for _, a := range agents {
		eventually(t, "all agents see each other", func() bool { return len(a.group.Members()) == len(agents) })
	}
	time.Sleep(1500 * time.Millisecond) // the claims spread, the last announcements are sent
	watching := client.watch(vip4)
	watching.more(t)
	old := holders(hosts, vip4)[0]
	for _, a := range agents {
		if a.host == old {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			a.HandOver(ctx)
			if ctx.Err() != nil {
				t.Error("nobody relieved it")
			}
			cancel()
			a.stop()
		}
	}
	if now := holders(hosts, vip4); len(now) != 1 || now[0] == old {
		t.Errorf("%d nodes have it", len(now))
	}
	watching.more(t)
	watching.stop()
	handedOver(t, watching)
}
