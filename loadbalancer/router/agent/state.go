package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// maxClusters bounds what a client authority gone wrong can fill.
const maxClusters = 128

// owned is what the router keeps for one cluster.
type owned struct {
	doc      router.Accepted
	hash     string
	rejected *wire.Rejection
	targets  targetCounts
}

func newOwned(d router.Accepted) *owned {
	return &owned{doc: d, hash: d.Hash(), targets: countTargets(d.Groups)}
}

// state is the set of documents in force, by cluster.
type state map[string]*owned

// documents returns the documents, sorted by cluster.
func (s state) documents() []router.Document {
	var out []router.Document
	for _, cluster := range slices.Sorted(maps.Keys(s)) {
		if s[cluster].doc.Generation > 0 {
			out = append(out, s[cluster].doc.Document)
		}
	}
	return out
}

// addresses returns all frontends' addresses, sorted.
func addressesOf(documents []router.Document) []netip.Addr {
	var out []netip.Addr
	for _, d := range documents {
		for _, f := range d.Frontends {
			if n := len(out); n == 0 || out[n-1] != f.Address {
				out = append(out, f.Address)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// step is what a request leads to.
type step struct {
	doc router.Accepted
	// delta leads there; nil: the document is new as a whole.
	delta *router.Delta
	// changed: the router does not run it already.
	changed bool
}

// next judges a request. Nothing is changed.
func (s state) next(r *wire.ApplyRequest, where func(netip.Addr) (string, error)) (step, *refusal) {
	var current owned
	if c := s[r.GetCluster()]; c != nil {
		current = *c
	} else if len(s) >= maxClusters {
		return step{}, refuse(router.ReasonTooLarge, "the router already serves %d clusters", len(s))
	}
	now := current.doc
	switch {
	case now.Identity != r.GetIdentity() && len(now.Frontends) > 0:
		return step{}, refuse(router.ReasonIdentity, "cluster %s is known with identity %q and has %d frontends here, not with %q: two clusters of one name, or a rebuilt one; "+
			"then remove %s%s from the agent's state directory and restart it", r.GetCluster(), now.Identity, len(now.Frontends), r.GetIdentity(), r.GetCluster(), snapshotSuffix)
	case now.Identity == r.GetIdentity() && r.GetToken() < now.Token:
		return step{}, refuse(router.ReasonStaleToken, "token %d is older than %d: another leader has taken over", r.GetToken(), now.Token)
	case r.GetGeneration() == now.Generation && r.GetHash() == current.hash && r.GetToken() == now.Token && now.Generation > 0:
		return step{doc: now}, nil
	case r.GetBaseGeneration() != now.Generation || r.GetGeneration() <= now.Generation:
		return step{}, refuse(router.ReasonGeneration, "the router runs generation %d, not %d", now.Generation, r.GetBaseGeneration())
	}
	next, refusal := result(now, r)
	if refusal != nil {
		return step{}, refusal
	}
	if refusal := s.admit(next, where); refusal != nil {
		return step{}, refusal
	}
	if refusal := s.admitOthers(now.Document, next); refusal != nil {
		return step{}, refusal
	}
	return next, nil
}

// result builds the document of a request and checks it by itself.
func result(now router.Accepted, r *wire.ApplyRequest) (step, *refusal) {
	delta, err := router.DeltaFromWire(r)
	if err != nil {
		return step{}, refuse(router.ReasonInvalid, "%v", err)
	}
	next := step{changed: true}
	if r.GetWhole() {
		next.doc, err = router.Accept(router.Document{
			Cluster: r.GetCluster(), Identity: r.GetIdentity(), Groups: delta.Groups, Frontends: delta.Frontends, Routes: delta.Routes,
		})
	} else {
		next.delta = &delta
		next.doc, err = now.Stamped(r.GetCluster(), r.GetIdentity(), 0, 0).Edit(delta)
	}
	var invalid *router.InvalidError
	switch {
	case errors.As(err, &invalid):
		refusal := refuse(router.ReasonInvalid, "%v", err)
		refusal.frontend, refusal.service = invalid.Frontend, invalid.Service
		return step{}, refusal
	case err != nil:
		return step{}, refuse(router.ReasonHash, "the difference does not fit: %v", err)
	}
	next.doc = next.doc.Stamped(r.GetCluster(), r.GetIdentity(), r.GetToken(), r.GetGeneration())
	if hash := next.doc.Hash(); hash != r.GetHash() {
		return step{}, refuse(router.ReasonHash, "the document has hash %s here and %s there", hash, r.GetHash())
	}
	return next, nil
}

// admit checks a document against the other clusters' and the interfaces. Of a
// difference, what is new is looked at: the rest was admitted.
func (s state) admit(next step, where func(netip.Addr) (string, error)) *refusal {
	total := len(next.doc.Frontends)
	for cluster, o := range s {
		if cluster != next.doc.Cluster {
			total += len(o.doc.Frontends)
		}
	}
	if total > router.MaxFrontends {
		return refuse(router.ReasonTooLarge, "all clusters together have %d frontends, at most %d", total, router.MaxFrontends)
	}
	fresh := next.doc.Frontends
	if next.delta != nil {
		fresh = next.delta.Frontends
	}
	var seen netip.Addr
	for _, f := range fresh {
		if f.Address == seen {
			continue
		}
		seen = f.Address
		for cluster, o := range s {
			if cluster != next.doc.Cluster && o.doc.HasAddress(f.Address) { // whose is not theirs to know
				return refuse(router.ReasonTaken, "address %s belongs to another cluster", f.Address).of(f)
			}
		}
		if _, err := where(f.Address); err != nil {
			return refuse(router.ReasonUnknownAddress, "%v", err).of(f)
		}
	}
	return nil
}

// withoutTaken takes out of a document from disk the frontends whose address another
// document has: where a journal could not be followed to its end, another cluster may
// have got it since. It returns what is to be told.
func (a *Agent) withoutTaken(d router.Accepted) (router.Accepted, string) {
	if len(a.state) == 0 {
		return d, ""
	}
	var out []string
	kept := slices.DeleteFunc(slices.Clone(d.Frontends), func(f router.Frontend) bool {
		for _, o := range a.state {
			if o.doc.HasAddress(f.Address) {
				out = append(out, f.Service)
				return true
			}
		}
		return false
	})
	if len(out) == 0 {
		return d, ""
	}
	problem := fmt.Sprintf("document of cluster %s: %d frontends, of Service %s first, are closed until the cluster sends its document again: another cluster has their address", d.Cluster, len(out), out[0])
	without := d.Document
	without.Frontends = kept
	next, err := router.Accept(without)
	if err != nil { // less of what was valid is valid
		return router.Accepted{}.Stamped(d.Cluster, d.Identity, d.Token, d.Generation), fmt.Sprintf("%s: %v", problem, err)
	}
	return next, problem
}

// refusal is a rejection in the making.
type refusal struct {
	reason            router.Reason
	message           string
	frontend, service string
}

func refuse(reason router.Reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// of names the frontend at fault.
func (r *refusal) of(f router.Frontend) *refusal {
	r.frontend, r.service = f.Key().String(), f.Service
	r.message = fmt.Sprintf("frontend %s of Service %s: %s", r.frontend, cmp.Or(f.Service, "?"), r.message)
	return r
}

func (r *refusal) wire(generation uint64) *wire.Rejection {
	return &wire.Rejection{
		Generation: generation, Reason: string(r.reason), Message: r.message, Frontend: r.frontend, Service: r.service,
	}
}
