// Package explain tells why a Service is as it is: what it waits for, or the way
// of a packet from outside to its pods with the state of each hop, and what
// happened last. It reads and changes nothing.
package explain

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
)

// Report is what is told.
type Report struct {
	Service string `json:"service"`
	// Class is why the Service is ours, or whose it is.
	Class string `json:"class"`
	Ours  bool   `json:"ours"`
	// Policy is its externalTrafficPolicy.
	Policy string `json:"externalTrafficPolicy,omitempty"`
	// Pools are what the plan of the cloud-controller-manager tries.
	Pools []Choice `json:"pools,omitempty"`
	// Pending says why it has no address, or not all.
	Pending []path.Reason `json:"pending,omitempty"`
	// Ways are those to its addresses.
	Ways   []path.Way      `json:"ways,omitempty"`
	Events []Event         `json:"events,omitempty"`
	Gaps   []inventory.Gap `json:"gaps,omitempty"`
}

// Choice is where an address of one family may come from.
type Choice struct {
	Family string `json:"family"`
	// Asked is the address that the Service asks for.
	Asked      string      `json:"asked,omitempty"`
	Candidates []Candidate `json:"candidates"`
}

// Candidate is one pool, in the order in which they are tried.
type Candidate struct {
	Pool    string `json:"pool"`
	Current bool   `json:"current,omitempty"`
	Used    int    `json:"used"`
	Total   int    `json:"total"`
	// Refuses says why it does not give an address.
	Refuses string `json:"refuses,omitempty"`
}

// New explains a Service. It is an error that the Service is not there, or is
// not of type LoadBalancer and has nothing of ours.
func New(ctx context.Context, c inventory.Clients, namespace, name string) (*Report, error) {
	inv, err := inventory.Read(ctx, c)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, inventory.Timeout)
	defer cancel()
	svc := inv.Service(namespace, name)
	if svc == nil {
		return nil, missing(ctx, c, namespace, name)
	}
	r := about(inv, svc)
	events, err := readEvents(ctx, c.Kube, inv, svc)
	if err != nil {
		r.Gaps = append(r.Gaps, inventory.Gap{What: "Events", Why: err.Error()})
	}
	r.Events = events
	return r, nil
}

// missing says what there is instead of a Service of type LoadBalancer.
func missing(ctx context.Context, c inventory.Clients, namespace, name string) error {
	svc, err := c.Kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no Service %s/%s", namespace, name)
	case err != nil:
		return fmt.Errorf("read Service %s/%s: %w", namespace, name, err)
	}
	return fmt.Errorf("Service %s/%s is of type %s: only one of type LoadBalancer gets an address", namespace, name, svc.Spec.Type) //nolint:staticcheck // Service is a name
}

// about explains a Service from the inventory.
func about(inv *inventory.Inventory, svc *corev1.Service) *Report {
	r := &Report{
		Service: svc.Namespace + "/" + svc.Name, Ours: loadbalancer.Ours(svc, inv.DefaultClass()), Class: class(svc),
		Policy: string(svc.Spec.ExternalTrafficPolicy), Gaps: inv.Gaps,
	}
	r.Ways = path.Ways(inv, svc)
	if svc.DeletionTimestamp != nil {
		r.Pending = []path.Reason{{
			Why:    "it is being deleted since " + svc.DeletionTimestamp.UTC().Format(time.RFC3339),
			Remedy: "its finalizer goes as soon as a cloud-controller-manager that leads has taken it off its addresses",
		}}
		return r
	}
	if !r.Ours {
		r.Pending = path.Pending(inv, svc)
		return r
	}
	verdict := inv.Judge(svc)
	for _, c := range verdict.Choices {
		r.Pools = append(r.Pools, choice(c))
	}
	if len(r.Ways) == 0 || verdict.Err != nil {
		r.Pending = path.Pending(inv, svc)
	}
	return r
}

func class(svc *corev1.Service) string {
	if c := svc.Spec.LoadBalancerClass; c != nil {
		return *c
	}
	return "none (the default)"
}

func choice(c loadbalancer.Choice) Choice {
	out := Choice{Family: c.Family.String()}
	if c.Address.IsValid() {
		out.Asked = c.Address.String()
	}
	for _, p := range c.Pools {
		k := Candidate{Pool: p.Pool, Current: p.Current, Used: p.Counts.Used, Total: p.Counts.Total}
		if p.Err != nil {
			k.Refuses = p.Err.Error()
		}
		out.Candidates = append(out.Candidates, k)
	}
	return out
}
