package migrate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Plan is what there is to do.
type Plan struct {
	// From is the predecessor.
	From     string    `json:"from"`
	Pools    []Pool    `json:"pools"`    // sorted by name
	Services []Service `json:"services"` // sorted by namespace and name
	// Running are workloads of the predecessor that write Services: while they do,
	// no Service is touched.
	Running []string `json:"running,omitempty"`
	// Answering are those that answer for the addresses. onelb's nodes wait until they are silent.
	Answering []string `json:"answering,omitempty"`
	// Problems keep all of it from being applied.
	Problems []string `json:"problems,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	// Afterwards is what a person does when all Services are there.
	Afterwards []string `json:"afterwards,omitempty"`
}

// Pool is an AddressPool that shall be there.
type Pool struct {
	Name string                   `json:"name"`
	Spec v1alpha1.AddressPoolSpec `json:"spec"`
	// There: an AddressPool of that name exists, and is taken as it is.
	There bool `json:"there,omitempty"`
	// AutoAssign: the pool gets it when all Services are there, and until then gives
	// addresses to those only that ask for them. False for one that somebody made
	// else: that stays as it is.
	AutoAssign bool     `json:"autoAssign"`
	Problems   []string `json:"problems,omitempty"`
	Notes      []string `json:"notes,omitempty"`
}

// Migrating marks an AddressPool that is made here and shall get autoAssign when all
// Services are there. Then it goes: what a person sets afterwards is left alone.
const Migrating = annotation.Prefix + "migrating"

// migrating reports whether a pool has the mark.
func migrating(p *v1alpha1.AddressPool) bool { return p.Annotations[Migrating] == "true" }

// Service is one that moves.
type Service struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// Addresses are those that it shows and keeps; empty: it waits for one.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Pool      string       `json:"pool,omitempty"`
	// Annotations are those that it gets.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Done: onelb has given it these addresses.
	Done bool `json:"done,omitempty"`
	// Problems keep it from being moved.
	Problems []string `json:"problems,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// Key is namespace/name.
func (s Service) Key() string { return s.Namespace + "/" + s.Name }

// Left counts the Services that can be moved and are not yet, and those that cannot.
func (p Plan) Left() (open, blocked int) {
	bad := map[string]bool{}
	for _, pool := range p.Pools {
		bad[pool.Name] = len(pool.Problems) > 0
	}
	for _, s := range p.Services {
		switch {
		case s.Done:
		case len(s.Problems) > 0 || bad[s.Pool]:
			blocked++
		default:
			open++
		}
	}
	return open, blocked
}

// pool finds a planned pool by name, or nil.
func (p *Plan) pool(name string) *Pool {
	if i := slices.IndexFunc(p.Pools, func(x Pool) bool { return x.Name == name }); i >= 0 {
		return &p.Pools[i]
	}
	return nil
}

func (p *Plan) sort() {
	slices.SortFunc(p.Pools, func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Services, func(a, b Service) int { return cmp.Compare(a.Key(), b.Key()) })
}

// shown are the addresses in a Service's status; strange ones are left out.
func shown(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// pin are the annotations with which a Service asks for what it has.
func pin(s *Service, share string) {
	s.Annotations = map[string]string{}
	if s.Pool != "" {
		s.Annotations[annotation.Pool.Name] = s.Pool
	}
	if len(s.Addresses) > 0 {
		texts := make([]string, len(s.Addresses))
		for i, a := range s.Addresses {
			texts[i] = a.String()
		}
		s.Annotations[annotation.Address.Name] = strings.Join(texts, ",")
	}
	if share != "" {
		s.Annotations[annotation.Share.Name] = share
	}
}

// settle notes whether there is nothing left to do: onelb has given the Service all
// that it shows. One that waits needs its annotations only.
func (s *Service) settle(inv *inventory.Inventory, svc *corev1.Service) {
	for key, value := range s.Annotations {
		if (len(s.Addresses) == 0 || key == annotation.Share.Name) && svc.Annotations[key] != value {
			return
		}
	}
	for _, a := range s.Addresses {
		if !inv.Owns(svc, a) {
			return
		}
	}
	s.Done = true
}
