package agent

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// maxDown bounds the list of unhealthy members in a status.
const maxDown = 256

// statuses are the clusters' statuses for the watchers; the loop writes them.
type statuses struct {
	mu       sync.Mutex
	revision uint64
	current  map[string]*wire.Status // never changed once it is here
	empty    *wire.Status            // for a cluster without a document
	changed  chan struct{}           // closed and replaced at each change
}

func (s *statuses) init() {
	s.current, s.empty, s.changed = map[string]*wire.Status{}, &wire.Status{}, make(chan struct{})
}

// get returns the newest status of a cluster.
func (s *statuses) get(cluster string) *wire.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status := s.current[cluster]; status != nil {
		return status
	}
	return s.empty
}

// wait returns the channel that is closed at the next change.
func (s *statuses) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// set replaces all statuses and wakes the watchers if one differs.
func (s *statuses) set(next map[string]*wire.Status, empty *wire.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := len(next) == len(s.current) && proto.Equal(withRevision(empty, 0), withRevision(s.empty, 0))
	for cluster, n := range next {
		same = same && s.current[cluster] != nil && proto.Equal(n, withRevision(s.current[cluster], 0))
	}
	if same {
		return
	}
	s.revision++
	for cluster, n := range next {
		next[cluster] = withRevision(n, s.revision)
	}
	s.current, s.empty = next, withRevision(empty, s.revision)
	close(s.changed)
	s.changed = make(chan struct{})
}

// withRevision returns a copy; the lists are shared.
func withRevision(s *wire.Status, revision uint64) *wire.Status {
	return &wire.Status{
		Revision: revision, Generation: s.GetGeneration(), Hash: s.GetHash(), Token: s.GetToken(), Identity: s.GetIdentity(),
		Rejection: s.GetRejection(), Master: s.GetMaster(), Members: s.GetMembers(), Healthy: s.GetHealthy(),
		Down: s.GetDown(), Problems: s.GetProblems(), Version: s.GetVersion(), Routes: s.GetRoutes(), Features: s.GetFeatures(),
	}
}

// publish makes the statuses from the state.
func (a *Agent) publish() {
	problems := slices.Clone(a.restored)
	for _, kind := range slices.Sorted(maps.Keys(a.failing)) {
		problems = append(problems, kind+": "+a.failing[kind])
	}
	master, _ := a.role.get()
	a.metrics.role(master)
	empty := &wire.Status{Master: master, Version: a.opts.Version, Problems: problems, Routes: a.routes, Features: features()}
	results := a.health.Snapshot()
	next := make(map[string]*wire.Status, len(a.state))
	for cluster, o := range a.state {
		s := withRevision(empty, 0)
		s.Generation, s.Hash, s.Token, s.Identity = o.doc.Generation, o.hash, o.doc.Token, o.doc.Identity
		s.Rejection = o.rejected
		s.Problems = slices.Concat(problems, a.troubles(o.doc.Document, results))
		members(s, o, results)
		next[cluster] = s
	}
	a.metrics.backends(results)
	a.status.set(next, empty)
}

// features are what this build can do.
func features() []string {
	var out []string
	for _, f := range router.Features() {
		out = append(out, string(f))
	}
	return out
}

// members counts each checked backend once, and names those that are down.
func members(s *wire.Status, o *owned, results map[health.Target]health.Result) {
	for t := range o.targets {
		s.Members++
		if results[t].State == health.Healthy {
			s.Healthy++
		}
	}
	if s.GetHealthy() == s.GetMembers() {
		return // as it is nearly always, and there may be many groups
	}
	seen := map[health.Target]bool{}
	for i := range o.doc.Groups {
		g := &o.doc.Groups[i]
		if g.Check == nil {
			continue
		}
		for _, m := range g.Members {
			t := targetOf(g, m)
			if r := results[t]; r.State != health.Healthy && !seen[t] && len(s.GetDown()) < maxDown {
				seen[t] = true
				s.Down = append(s.Down, down(t, m.Node, r))
			}
		}
	}
}

func down(t health.Target, node string, r health.Result) *wire.Down {
	message := "not probed yet"
	if r.Err != nil {
		message = r.Err.Error()
	}
	return &wire.Down{Address: t.Address.AsSlice(), Port: uint32(t.Port), Path: t.Path, Node: node, Message: message}
}

// Ready returns an error while the documents are not yet in force, or not wholly.
func (a *Agent) Ready() error {
	s := a.status.get("")
	if s.GetRevision() == 0 {
		return errors.New("documents are being restored")
	}
	if problems := s.GetProblems(); len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}
