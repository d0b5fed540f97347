package member_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

var (
	v4 = netip.MustParseAddr("203.0.113.7")
	v6 = netip.MustParseAddr("2001:db8::7")
)

func TestBeats(t *testing.T) {
	// Each beats all that stand before it.
	order := []member.Claim{
		{},
		{Address: v4, Node: "b", Epoch: 1},
		{Address: v4, Node: "b", Epoch: 1, Released: true},
		{Address: v4, Node: "a", Epoch: 1},
		{Address: v4, Node: "a", Epoch: 1, Released: true},
		{Address: v4, Node: "c", Epoch: 2},
	}
	for i, c := range order {
		for j, other := range order {
			if got := c.Beats(other); got != (i > j) {
				t.Errorf("%+v beats %+v: %v", c, other, got)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	want := []member.Claim{
		{Address: v4, Node: "node-1", Epoch: 1},
		{Address: v6, Node: "node-2", Epoch: 1 << 40, Released: true},
		{Address: v6, Node: "node-3", Epoch: 3, StandIn: true},
		{Address: v6, Node: "node-3", Epoch: 3, StandIn: true, Released: true},
	}
	got, err := member.Decode(member.Encode(want...))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := member.Decode(member.Encode()); err != nil || len(got) != 0 {
		t.Errorf("empty list: %v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := member.Encode(member.Claim{Address: v4, Node: "node-1", Epoch: 7})
	for n := 2; n < len(good); n++ {
		if _, err := member.Decode(good[:n]); !errors.Is(err, member.ErrMessage) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for name, change := range map[string]func([]byte){
		"version":         func(b []byte) { b[0] = 9 },
		"unknown flag":    func(b []byte) { b[1] = 4 },
		"epoch 0":         func(b []byte) { b[9] = 0 },
		"negative epoch":  func(b []byte) { b[2] = 0x80 },
		"address length":  func(b []byte) { b[10] = 5 },
		"nameless":        func(b []byte) { b[15] = 0 },
		"name goes on":    func(b []byte) { b[15] = 200 },
		"trailing length": func(b []byte) { b[15] = 5 },
	} {
		b := slices.Clone(good)
		change(b)
		if _, err := member.Decode(b); !errors.Is(err, member.ErrMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := member.Decode(nil); !errors.Is(err, member.ErrMessage) {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(member.Encode(member.Claim{Address: v4, Node: "node-1", Epoch: 7}))
	f.Add(member.Encode(member.Claim{Address: v6, Node: "n", Epoch: 1, Released: true}, member.Claim{Address: v4, Node: "m", Epoch: 2}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := member.Decode(b)
		if err != nil {
			return
		}
		again, err := member.Decode(member.Encode(claims...))
		if err != nil || !slices.Equal(again, claims) {
			t.Fatalf("%+v became %+v, %v", claims, again, err)
		}
	})
}

// However the claims arrive, all end up with the same belief.
func TestBeatsConverges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var claims []member.Claim
		for range 6 {
			claims = append(claims, member.Claim{
				Address: v4, Node: string(rune('a' + r.IntN(3))), Epoch: 1 + r.Int64N(3), Released: r.IntN(2) == 0,
			})
		}
		var first member.Claim
		for round := range 4 {
			r.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
			var best member.Claim
			for _, c := range claims {
				if c.Beats(best) {
					best = c
				}
			}
			if round == 0 {
				first = best
			} else if best != first {
				t.Fatalf("%+v gave %+v and %+v", claims, first, best)
			}
		}
	}
}
