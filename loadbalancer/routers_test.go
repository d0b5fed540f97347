package loadbalancer

import (
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// TestLowest: whose word is waited for before an address is given back, when an instance
// has been away for long.
func TestLowest(t *testing.T) {
	backup := router.InstanceState{Endpoint: "b", Reachable: true, Version: "1", Confirmed: 7}
	master := backup
	master.Master, master.WasMaster = true, true
	for name, c := range map[string]struct {
		away, other router.InstanceState
		want        bool
	}{
		"was a backup":                 {router.InstanceState{Version: "1"}, backup, true},
		"was the master":               {router.InstanceState{Version: "1", WasMaster: true}, backup, false},
		"was the master, there is one": {router.InstanceState{Version: "1", WasMaster: true}, master, true},
		"never heard":                  {router.InstanceState{}, backup, false},
		"never heard, there is one":    {router.InstanceState{}, master, true},
		"never heard, none else":       {router.InstanceState{}, router.InstanceState{Endpoint: "b"}, false},
	} {
		r := newRouterSync("edge", nil, nil, nil)
		s := router.State{Instances: []router.InstanceState{c.away, c.other}}
		s.Instances[0].Endpoint = "a"
		now := time.Now()
		if _, all := r.lowest(s, now); all {
			t.Errorf("%s: not waited for at all", name)
		}
		if low, all := r.lowest(s, now.Add(lostAfter)); all != c.want || all && low != 7 {
			t.Errorf("%s: %d, %v, want %v", name, low, all, c.want)
		}
	}
}
