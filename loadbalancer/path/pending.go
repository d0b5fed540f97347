package path

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Reason says why a Service has no address, and what helps.
type Reason struct {
	Why    string `json:"why"`
	Remedy string `json:"remedy,omitempty"`
}

// Pending lists why a Service has no address, or not all: the plan of the
// cloud-controller-manager, from what the API server shows, and whether there is
// one that acts. Empty: it should get what it asks for in a moment, or has it.
func Pending(inv *inventory.Inventory, svc *corev1.Service) []Reason {
	if !loadbalancer.Ours(svc, inv.DefaultClass()) {
		return []Reason{notOurs(svc)}
	}
	var out []Reason
	if err := inv.Judge(svc).Err; err != nil {
		for _, e := range parts(err) {
			// The controller's messages say after a semicolon or colon what to do.
			out = append(out, Reason{Why: e.Error()})
		}
	}
	return append(out, manager(inv)...)
}

// parts takes joined errors apart.
func parts(err error) []error {
	var j interface{ Unwrap() []error }
	if errors.As(err, &j) && strings.Contains(err.Error(), "\n") && err.Error() == errors.Join(j.Unwrap()...).Error() {
		return j.Unwrap()
	}
	return []error{err}
}

func notOurs(svc *corev1.Service) Reason {
	if c := svc.Spec.LoadBalancerClass; c != nil {
		return Reason{
			Why:    fmt.Sprintf("its loadBalancerClass is %q: it is left to the load balancer of that name", *c),
			Remedy: fmt.Sprintf("make the Service again with loadBalancerClass %s or none (the field cannot be changed)", loadbalancer.Class),
		}
	}
	return Reason{
		Why:    "it has no loadBalancerClass, and the cloud-controller-manager runs with --default-class=false",
		Remedy: fmt.Sprintf("make the Service again with loadBalancerClass %s, or start the cloud-controller-manager without that flag", loadbalancer.Class),
	}
}

// manager says why nobody would act for a Service.
func manager(inv *inventory.Inventory) []Reason {
	describe := fmt.Sprintf("kubectl -n %s describe deployment %s; kubectl -n %[1]s logs deployment/%[2]s", inventory.Namespace, inventory.Manager)
	name, fresh := inv.Leads()
	switch {
	case fresh, inv.Unread("the Lease"), !inv.Elects() && inv.Manager.Status.ReadyReplicas > 0:
		return nil
	case inv.Manager != nil && inv.Manager.Status.ReadyReplicas == 0:
		return []Reason{{Why: "no cloud-controller-manager is ready", Remedy: describe}}
	case inv.Leader == nil:
		return []Reason{{Why: "no cloud-controller-manager has ever led in this cluster", Remedy: describe}}
	}
	return []Reason{{Why: fmt.Sprintf("no cloud-controller-manager leads: %s did last", name), Remedy: describe}}
}
