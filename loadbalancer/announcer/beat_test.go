package announcer_test

import (
	"net/netip"
	"testing"
	"time"
)

// With many addresses an agent wakes up no more often: what is regular is done on
// the beat, and so its neighbours are not woken for each announcement.
func TestManyAddressesAreAnnouncedOnTheBeat(t *testing.T) {
	bubble(t, nil, func(w *world) {
		c := wanted()
		for i := range 200 {
			a := c.Addresses[0]
			a.Address = netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 10)})
			c.Addresses = append(c.Addresses[:i], a)
		}
		w.SetCluster(c)
		after(10 * time.Second)
		before := len(w.announcements())
		after(2 * time.Minute)
		all := w.announcements()[before:]
		moments := map[time.Time]bool{}
		for _, at := range all {
			moments[at.Truncate(10*time.Millisecond)] = true
		}
		if len(all) < 200*3 {
			t.Errorf("announced %d times", len(all))
		}
		if len(moments) > 121 {
			t.Errorf("%d announcements at %d moments in two minutes", len(all), len(moments))
		}
	})
}
