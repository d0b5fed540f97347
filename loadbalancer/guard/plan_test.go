package guard

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/onelb/onelb/api/v1alpha1"
)

func readyNodes(n int) []node {
	var out []node
	for i := range n {
		out = append(out, node{name: fmt.Sprintf("n%02d", i), machine: i, ready: true, counts: true})
	}
	return out
}

func wanted(n int) []subject {
	var out []subject
	for i := range n {
		out = append(out, subject{address: netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(1 + i%250)}), wanted: true})
	}
	return out
}

// settle makes everything that was planned come true, until nothing changes.
func settle(t *testing.T, nodes []node, subjects []subject) []subject {
	t.Helper()
	for range 100 {
		lists, changed := plan(nodes, subjects), false
		for i := range subjects {
			var next []v1alpha1.Candidate
			for _, c := range lists[i] {
				if c.State != v1alpha1.CandidateDetaching {
					c.State = v1alpha1.CandidateAttached
					next = append(next, c)
				}
			}
			changed = changed || !slices.Equal(next, subjects[i].list)
			subjects[i].list = next
		}
		if !changed {
			return subjects
		}
	}
	t.Fatal("the plan never settles")
	return nil
}

func loads(subjects []subject) map[string]int {
	out := map[string]int{}
	for _, s := range subjects {
		for _, c := range s.list {
			out[c.Node]++
		}
	}
	return out
}

func TestPlanIsBalancedAndSticky(t *testing.T) {
	nodes := readyNodes(10)
	subjects := settle(t, nodes, wanted(100))
	for name, n := range loads(subjects) {
		if n != 30 {
			t.Errorf("%s has %d addresses, want 30", name, n)
		}
	}
	before := make([][]v1alpha1.Candidate, len(subjects))
	for i, s := range subjects {
		before[i] = slices.Clone(s.list)
	}
	// A node more moves nothing, a node that is gone only what it had.
	subjects = settle(t, append(nodes, node{name: "new", machine: 99, ready: true, counts: true}), subjects)
	for i, s := range subjects {
		if !slices.Equal(s.list, before[i]) {
			t.Fatalf("%s moved because a node came", s.address)
		}
	}
	nodes[3].ready, nodes[3].counts = false, false
	subjects = settle(t, nodes, subjects)
	for i, s := range subjects {
		for _, c := range before[i] {
			if c.Node != nodes[3].name && !slices.Contains(s.list, c) {
				t.Errorf("%s lost %s", s.address, c.Node)
			}
		}
		if len(s.list) != Enough {
			t.Errorf("%s has %v", s.address, s.list)
		}
	}
}

func TestPlanSteps(t *testing.T) {
	attached, attaching, detaching := v1alpha1.CandidateAttached, v1alpha1.CandidateAttaching, v1alpha1.CandidateDetaching
	c := func(node string, machine int32, s v1alpha1.CandidateState) v1alpha1.Candidate {
		return v1alpha1.Candidate{Node: node, Machine: machine, State: s}
	}
	a := netip.MustParseAddr("10.0.0.1")
	four := readyNodes(4)
	lame := readyNodes(4)
	lame[0].ready, lame[0].failing = false, true
	for _, tc := range []struct {
		name  string
		nodes []node
		in    subject
		want  []v1alpha1.Candidate
	}{
		{"released", four, subject{address: a, list: []v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attaching)}},
			[]v1alpha1.Candidate{c("n00", 0, detaching), c("n01", 1, detaching)}},
		{"no nodes", nil, subject{address: a, wanted: true}, nil},
		{"wanted again before the alias was gone", readyNodes(1), subject{address: a, wanted: true, list: []v1alpha1.Candidate{c("n00", 0, detaching)}},
			[]v1alpha1.Candidate{c("n00", 0, attaching)}},
		{"gone: replaced first, detached later", four[1:], subject{address: a, wanted: true, list: []v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attached), c("n02", 2, attached)}},
			[]v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attached), c("n02", 2, attached), c("n03", 3, attaching)}},
		{"gone: enough others", four[1:], subject{address: a, wanted: true, holder: "n00", list: []v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attached), c("n02", 2, attached), c("n03", 3, attached)}},
			[]v1alpha1.Candidate{c("n00", 0, detaching), c("n01", 1, attached), c("n02", 2, attached), c("n03", 3, attached)}},
		{"another machine of the same name", readyNodes(2), subject{address: a, wanted: true, list: []v1alpha1.Candidate{c("n00", 7, attached), c("n01", 1, attached)}},
			[]v1alpha1.Candidate{c("n00", 0, attaching), c("n00", 7, detaching), c("n01", 1, attached)}},
		{"hotplugs fail: others", lame, subject{address: a, wanted: true, list: []v1alpha1.Candidate{c("n00", 0, attaching), c("n01", 1, attached), c("n02", 2, attached)}},
			[]v1alpha1.Candidate{c("n00", 0, attaching), c("n01", 1, attached), c("n02", 2, attached), c("n03", 3, attaching)}},
		{"hotplugs fail: what is attached stays", lame, subject{address: a, wanted: true, list: []v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attached), c("n02", 2, attached)}},
			[]v1alpha1.Candidate{c("n00", 0, attached), c("n01", 1, attached), c("n02", 2, attached)}},
	} {
		if got := plan(tc.nodes, []subject{tc.in})[0]; !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n got %v\nwant %v", tc.name, got, tc.want)
		}
	}
	holder := subject{address: a, wanted: true, holder: "n03"}
	for _, n := range []string{"n00", "n01", "n02", "n03"} {
		holder.list = append(holder.list, c(n, int32(n[2]-'0'), attached))
	}
	got := plan(four, []subject{holder})[0]
	if count(got, func(c v1alpha1.Candidate) bool { return c.State == detaching }) != 1 || got[3].State != attached {
		t.Errorf("one too many, held by n03: %v", got)
	}
}

// TestPlanNeverLosesAnAlias: whatever happens, who may have an alias stays in the
// list, and with what it has planned the plan is content.
func TestPlanNeverLosesAnAlias(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	states := []v1alpha1.CandidateState{v1alpha1.CandidateAttached, v1alpha1.CandidateAttaching, v1alpha1.CandidateDetaching}
	for range 2000 {
		nodes := readyNodes(r.IntN(7))
		for i := range nodes {
			nodes[i].counts = r.IntN(4) > 0
			nodes[i].failing = r.IntN(5) == 0
			nodes[i].ready = nodes[i].counts && !nodes[i].failing && r.IntN(4) > 0
		}
		subjects := wanted(1 + r.IntN(6))
		for i := range subjects {
			subjects[i].wanted = r.IntN(4) > 0
			for n := range 7 {
				if r.IntN(2) == 0 {
					subjects[i].list = append(subjects[i].list, v1alpha1.Candidate{Node: fmt.Sprintf("n%02d", n), Machine: int32(n), State: states[r.IntN(3)]})
				}
			}
			if r.IntN(2) == 0 {
				subjects[i].holder = fmt.Sprintf("n%02d", r.IntN(7))
			}
		}
		lists := plan(nodes, subjects)
		for i, s := range subjects {
			for _, c := range s.list {
				if j := find(lists[i], int(c.Machine)); j < 0 {
					t.Fatalf("%v was lost: %v", c, lists[i])
				} else if s.wanted && c.State == v1alpha1.CandidateAttached && c.Node == s.holder && lists[i][j].State == v1alpha1.CandidateDetaching &&
					slices.ContainsFunc(nodes, func(n node) bool { return n.name == c.Node && n.counts }) {
					t.Fatalf("the holder %v was sent away: %v", c, lists[i])
				}
			}
			subjects[i].list = lists[i]
		}
		for i, again := range plan(nodes, subjects) {
			if !slices.Equal(again, lists[i]) {
				t.Fatalf("planned anew without need:\n%v\n%v", lists[i], again)
			}
		}
	}
}
