package agent

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// unsupported refuses a request in which there is a field that this build does not
// know: what it says may be a restriction.
func unsupported(r *wire.ApplyRequest, version string) *refusal {
	say := func(n protowire.Number, of string) *refusal {
		return refuse(router.ReasonUnsupported, "onelb-router %s does not know field %d of %s: update it; routers come before the cloud-controller-manager", version, n, of)
	}
	if n := unknown(r); n != 0 {
		return say(n, "the request")
	}
	for _, g := range r.GetGroups() {
		if n := unknownOfGroup(g); n != 0 {
			return say(n, fmt.Sprintf("group %q", g.GetName()))
		}
	}
	for _, f := range r.GetFrontends() {
		if n := unknownOfFrontend(f); n != 0 {
			refusal := say(n, "a frontend of Service "+f.GetService())
			refusal.service = f.GetService()
			return refusal
		}
	}
	for _, route := range r.GetRoutes() {
		if n := unknownOfRoute(route); n != 0 {
			return say(n, "a route")
		}
	}
	for _, k := range r.GetRemovedFrontends() {
		if n := unknown(k); n != 0 {
			return say(n, "the key of a frontend to remove")
		}
	}
	for _, p := range r.GetRemovedRoutes() {
		if n := unknown(p); n != 0 {
			return say(n, "a route to remove")
		}
	}
	return nil
}

// withoutUnknown takes out of a stored document the frontends that a newer build
// wrote with something that this one does not know, or whose group has such, and such
// routes. They
// are closed rather than open until the cluster sends what this build can do. It
// returns what is to be told.
func withoutUnknown(w *wire.Document) (problem string) {
	groups := map[string]bool{}
	for _, g := range w.GetGroups() {
		groups[g.GetName()] = unknownOfGroup(g) != 0
	}
	var kept []*wire.Frontend
	first := ""
	for _, f := range w.GetFrontends() {
		if unknownOfFrontend(f) == 0 && !groups[f.GetGroup()] {
			kept = append(kept, f)
		} else if first == "" {
			first = f.GetService()
		}
	}
	out := len(w.GetFrontends()) - len(kept)
	w.Frontends = kept
	routes := len(w.GetRoutes())
	w.Routes = slices.DeleteFunc(w.GetRoutes(), func(r *wire.Route) bool { return unknownOfRoute(r) != 0 })
	routes -= len(w.GetRoutes())
	switch {
	case out > 0:
		return fmt.Sprintf("a newer onelb-router wrote the document of cluster %s: %d frontends, of Service %s first, need what this one does not know and are closed until the cluster sends its document again", w.GetCluster(), out, first)
	case routes > 0:
		return fmt.Sprintf("a newer onelb-router wrote the document of cluster %s: %d routes need what this one does not know and are left out until the cluster sends its document again", w.GetCluster(), routes)
	case unknown(w) != 0:
		return fmt.Sprintf("a newer onelb-router wrote the document of cluster %s: its field %d is left out until the cluster sends its document again", w.GetCluster(), unknown(w))
	}
	return ""
}

func unknownOfGroup(g *wire.Group) protowire.Number {
	n := unknown(g)
	if n == 0 && g.GetCheck() != nil {
		n = unknown(g.GetCheck())
	}
	for _, m := range g.GetMembers() {
		if n == 0 {
			n = unknown(m)
		}
	}
	return n
}

func unknownOfFrontend(f *wire.Frontend) protowire.Number {
	n := unknown(f)
	if n == 0 && f.GetKey() != nil {
		n = unknown(f.GetKey())
	}
	for _, p := range f.GetSourceRanges() {
		if n == 0 {
			n = unknown(p)
		}
	}
	return n
}

func unknownOfRoute(r *wire.Route) protowire.Number {
	n := unknown(r)
	if n == 0 && r.GetDestination() != nil {
		n = unknown(r.GetDestination())
	}
	return n
}

// unknown returns the number of a field of the messages themselves that this build
// does not know; 0: none.
func unknown(messages ...proto.Message) protowire.Number {
	for _, m := range messages {
		if b := m.ProtoReflect().GetUnknown(); len(b) > 0 {
			n, _, _ := protowire.ConsumeTag(b)
			return max(n, 1) // also of what is no tag
		}
	}
	return 0
}
