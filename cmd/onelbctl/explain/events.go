package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/onelb/onelb/loadbalancer/inventory"
)

// lastEvents is how many are told.
const lastEvents = 12

// Event is something that happened to the Service, one of its addresses or one
// of its pools.
type Event struct {
	Time    time.Time `json:"time"`
	About   string    `json:"about"`
	Type    string    `json:"type"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Count   int32     `json:"count,omitempty"`
}

// readEvents returns the last events, the newest last.
func readEvents(ctx context.Context, c kubernetes.Interface, inv *inventory.Inventory, svc *corev1.Service) ([]Event, error) {
	type object struct{ namespace, kind, name string }
	about := []object{{svc.Namespace, "Service", svc.Name}}
	pools := map[string]bool{}
	for _, v := range inv.Owned(svc) {
		about = append(about, object{metav1.NamespaceDefault, "VirtualIP", v.Name})
		pools[v.Spec.Pool] = true
	}
	for _, choice := range inv.Judge(svc).Choices {
		for _, p := range choice.Pools {
			pools[p.Pool] = true
		}
	}
	for p := range pools {
		about = append(about, object{metav1.NamespaceDefault, "AddressPool", p})
	}
	var out []Event
	for _, o := range about {
		l, err := c.CoreV1().Events(o.namespace).List(ctx, metav1.ListOptions{
			FieldSelector: fields.Set{"involvedObject.kind": o.kind, "involvedObject.name": o.name}.String(),
		})
		if err != nil {
			return nil, fmt.Errorf("events of %s %s: %w", o.kind, o.name, err)
		}
		for i := range l.Items {
			e := &l.Items[i]
			if e.InvolvedObject.Kind != o.kind || e.InvolvedObject.Name != o.name || o.kind == "Service" && e.InvolvedObject.UID != svc.UID {
				continue // an earlier object of that name
			}
			out = append(out, Event{Time: when(e), About: o.kind + " " + o.name, Type: e.Type, Reason: e.Reason, Message: e.Message, Count: e.Count})
		}
	}
	slices.SortStableFunc(out, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return out[max(0, len(out)-lastEvents):], nil
}

// when an event happened last; which field says so depends on who sent it.
func when(e *corev1.Event) time.Time {
	last := e.CreationTimestamp.Time
	for _, t := range []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time} {
		if t.After(last) {
			last = t
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(last) {
		last = e.Series.LastObservedTime.Time
	}
	return last
}
