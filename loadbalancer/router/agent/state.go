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
	doc      router.Document
	hash     string
	rejected *wire.Rejection
}

// state is the set of documents in force, by cluster.
type state map[string]*owned

// documents returns the documents, sorted by cluster.
func (s state) documents() []router.Document {
	var out []router.Document
	for _, cluster := range slices.Sorted(maps.Keys(s)) {
		if s[cluster].doc.Generation > 0 {
			out = append(out, s[cluster].doc)
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

// next judges a request and returns the document that it leads to. Nothing is
// changed. With changed == false the router already runs it.
func (s state) next(r *wire.ApplyRequest, where func(netip.Addr) (string, error)) (d router.Document, changed bool, refusal *refusal) {
	var current owned
	if c := s[r.GetCluster()]; c != nil {
		current = *c
	} else if len(s) >= maxClusters {
		return d, false, refuse(router.ReasonTooLarge, "the router already serves %d clusters", len(s))
	}
	now := current.doc
	switch {
	case now.Identity != r.GetIdentity() && len(now.Frontends) > 0:
		return d, false, refuse(router.ReasonIdentity, "cluster %s is known with identity %q and has %d frontends here, not with %q: two clusters of one name, or a rebuilt one; "+
			"then remove %s%s from the agent's state directory and restart it", r.GetCluster(), now.Identity, len(now.Frontends), r.GetIdentity(), r.GetCluster(), snapshotSuffix)
	case now.Identity == r.GetIdentity() && r.GetToken() < now.Token:
		return d, false, refuse(router.ReasonStaleToken, "token %d is older than %d: another leader has taken over", r.GetToken(), now.Token)
	case r.GetGeneration() == now.Generation && r.GetHash() == current.hash && r.GetToken() == now.Token && now.Generation > 0:
		return now, false, nil
	case r.GetBaseGeneration() != now.Generation || r.GetGeneration() <= now.Generation:
		return d, false, refuse(router.ReasonGeneration, "the router runs generation %d, not %d", now.Generation, r.GetBaseGeneration())
	}
	d, refusal = result(now, r)
	if refusal != nil {
		return d, false, refusal
	}
	if refusal := s.admit(d, where); refusal != nil {
		return d, false, refusal
	}
	return d, true, nil
}

// result builds the document of a request and checks it by itself.
func result(now router.Document, r *wire.ApplyRequest) (router.Document, *refusal) {
	delta, err := router.DeltaFromWire(r)
	if err != nil {
		return now, refuse(router.ReasonInvalid, "%v", err)
	}
	d := now
	if r.GetWhole() {
		d.Groups, d.Frontends, d.Routes = delta.Groups, delta.Frontends, delta.Routes
	} else if d, err = now.Patch(delta); err != nil {
		return d, refuse(router.ReasonHash, "the difference does not fit: %v", err)
	}
	d.Cluster, d.Identity, d.Token, d.Generation = r.GetCluster(), r.GetIdentity(), r.GetToken(), r.GetGeneration()
	// Both walk through all of a large document; neither needs the other.
	hashed := make(chan string, 1)
	go func() { hashed <- d.Hash() }()
	if err := d.Validate(); err != nil {
		refusal := refuse(router.ReasonInvalid, "%v", err)
		var invalid *router.InvalidError
		if errors.As(err, &invalid) {
			refusal.frontend, refusal.service = invalid.Frontend, invalid.Service
		}
		return d, refusal
	}
	if hash := <-hashed; hash != r.GetHash() {
		return d, refuse(router.ReasonHash, "the document has hash %s here and %s there: the agent may be too old for it", hash, r.GetHash())
	}
	return d, nil
}

// admit checks a document against the other clusters' and the interfaces.
func (s state) admit(d router.Document, where func(netip.Addr) (string, error)) *refusal {
	others := map[netip.Addr]string{}
	total := len(d.Frontends)
	for cluster, o := range s {
		if cluster == d.Cluster {
			continue
		}
		total += len(o.doc.Frontends)
		for _, f := range o.doc.Frontends {
			others[f.Address] = cluster
		}
	}
	if total > router.MaxFrontends {
		return refuse(router.ReasonTooLarge, "all clusters together have %d frontends, at most %d", total, router.MaxFrontends)
	}
	var seen netip.Addr
	for _, f := range d.Frontends {
		if f.Address == seen {
			continue
		}
		seen = f.Address
		if _, taken := others[f.Address]; taken { // whose is not theirs to know
			return refuse(router.ReasonTaken, "address %s belongs to another cluster", f.Address).of(f)
		}
		if _, err := where(f.Address); err != nil {
			return refuse(router.ReasonUnknownAddress, "%v", err).of(f)
		}
	}
	return nil
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
