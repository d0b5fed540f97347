package announcer

import "testing"

func TestJudge(t *testing.T) {
	live := func(p Peer) Peer { p.Live = true; return p }
	a, b := live(Peer{Name: "a"}), live(Peer{Name: "b"})
	reluctant := live(Peer{Name: "a", Reluctant: true})
	damped := live(Peer{Name: "a", Damped: true})
	wanted := Subject{Wanted: true}
	for name, c := range map[string]struct {
		peers []Peer
		s     Subject
		want  Verdict
	}{
		"it may":                           {[]Peer{a, b}, wanted, Announces},
		"alone":                            {[]Peer{a}, wanted, Announces},
		"unknown":                          {[]Peer{b}, wanted, Silent},
		"nobody wants it":                  {[]Peer{a}, Subject{}, Silent},
		"excluded":                         {[]Peer{live(Peer{Name: "a", Excluded: true})}, wanted, Silent},
		"no endpoint here":                 {[]Peer{a, b}, Subject{Wanted: true, Local: true, Endpoints: []string{"b"}}, Silent},
		"an endpoint here":                 {[]Peer{a, b}, Subject{Wanted: true, Local: true, Endpoints: []string{"a"}}, Announces},
		"the pool names others":            {[]Peer{a, b}, Subject{Wanted: true, Selected: true, Nodes: []string{"b"}}, Silent},
		"drained, others may":              {[]Peer{reluctant, b}, wanted, Withdraws},
		"drained, the other is, too":       {[]Peer{reluctant, live(Peer{Name: "b", Reluctant: true})}, wanted, Announces},
		"drained, the other is dead":       {[]Peer{reluctant, {Name: "b"}}, wanted, Announces},
		"drained, the other is in doubt":   {[]Peer{reluctant, live(Peer{Name: "b", Doubted: true})}, wanted, Announces},
		"drained, the other is excluded":   {[]Peer{reluctant, live(Peer{Name: "b", Excluded: true})}, wanted, Announces},
		"drained, with the only endpoint":  {[]Peer{reluctant, b}, Subject{Wanted: true, Local: true, Endpoints: []string{"a"}}, Announces},
		"drained, and without an endpoint": {[]Peer{reluctant, b}, Subject{Wanted: true, Local: true, Endpoints: []string{"b"}}, Silent},
		"comes and goes, others do not":    {[]Peer{damped, b}, wanted, Withdraws},
		"comes and goes, as others do":     {[]Peer{damped, live(Peer{Name: "b", Damped: true})}, wanted, Announces},
		"comes and goes, others drained":   {[]Peer{damped, live(Peer{Name: "b", Reluctant: true})}, wanted, Announces},
		"drained, the other comes, goes":   {[]Peer{reluctant, live(Peer{Name: "b", Damped: true})}, wanted, Withdraws},
		"another one comes and goes":       {[]Peer{a, live(Peer{Name: "b", Damped: true})}, wanted, Announces},
		"comes and goes, has the endpoint": {[]Peer{damped, b}, Subject{Wanted: true, Local: true, Endpoints: []string{"a"}}, Announces},
		"in doubt itself":                  {[]Peer{live(Peer{Name: "a", Doubted: true}), b}, wanted, Announces},
	} {
		if got := Judge(c.peers, "a", c.s); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
