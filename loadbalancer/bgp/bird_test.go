package bgp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab/bgprouter"
)

const birdConfig = `
router id 10.79.0.1;
log stderr all;
protocol device {}
protocol bfd { interface "eth0" { min rx interval 500 ms; min tx interval 500 ms; multiplier 8; }; }
template bgp nodes {
  local 10.79.0.1 as %[1]d;
  direct;
  password "swordfish";
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
protocol bgp n1 from nodes { neighbor 10.79.0.11 as 65001; bfd on; }
protocol bgp n2 from nodes { neighbor 10.79.0.12 as 65001; }
`

func bird(t *testing.T, asn int) *bgprouter.BIRD {
	t.Helper()
	b, err := bgprouter.StartBIRD(t.Context(), place(t), fmt.Sprintf(birdConfig, asn))
	must(t, err)
	t.Cleanup(func() { must(t, b.Stop()) })
	return b
}

// shows waits until BIRD's answer has all the words, and none of those that begin
// with a "!".
func shows(t *testing.T, b *bgprouter.BIRD, command string, words ...string) {
	t.Helper()
	eventually(t, command, func() string {
		got, err := b.Show(t.Context(), command)
		if err != nil {
			return err.Error()
		}
		for _, w := range words {
			if not, found := strings.CutPrefix(w, "!"); strings.Contains(got, not) == found {
				return fmt.Sprintf("%q in: %s", w, got)
			}
		}
		return ""
	})
}

// TestBIRD: internal and external sessions, both families over IPv4, signed, with BFD.
func TestBIRD(t *testing.T) {
	for name, asn := range map[string]uint32{"external": 64512, "internal": 65001} {
		t.Run(name, func(t *testing.T) {
			b := bird(t, int(asn))
			preference := uint32(250)
			var all []*node
			for i := range min(2, atOnce) {
				n := newNode(i)
				p := &n.desired.Peers[0]
				p.ASN, p.Password = asn, "swordfish"
				if i == 0 {
					p.BFDInterval, p.BFDMultiplier = 500*time.Millisecond, 8
				}
				n.routes(&Attributes{Communities: []uint32{64512<<16 | 100}, LocalPreference: &preference}, "203.0.113.7/32", "2001:db8::7/128")
				all = append(all, n.start(t, false))
			}
			for _, n := range all {
				n.up()
			}
			words := []string{"BGP.community: (64512,100)", "BGP.local_pref: 250"}
			if asn != 65001 {
				words[1] = "!BGP.local_pref: 250" // of no concern to another autonomous system
			}
			shows(t, b, "show route for 203.0.113.7/32 all", words...)
			for i := range all {
				shows(t, b, "show route for 203.0.113.7/32 all", "BGP.next_hop: "+nodes4[i].String())
				shows(t, b, "show route for 2001:db8::7/128 all", "BGP.next_hop: "+nodes6[i].String())
			}
			shows(t, b, "show bfd sessions", "Up")
			eventually(t, "this side says that BFD is up", func() string {
				if s := all[0].session(); s.BFD != "Up" || !s.Restart {
					return fmt.Sprintf("%+v", s)
				}
				return ""
			})
			last := len(all) - 1
			all[last].routes(&Attributes{})
			shows(t, b, "show route all", "!BGP.next_hop: "+nodes4[last].String())
		})
	}
}
