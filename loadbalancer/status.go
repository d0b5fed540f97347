package loadbalancer

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// status lists a Service's addresses: published ones first, then the inner ones
// that kube-proxy has to accept too; within each, in the order of the
// Service's families. The order is stable, since a reordered list is a change
// to everybody who watches.
func status(svc *corev1.Service, records []ipam.Record) *corev1.LoadBalancerStatus {
	families, err := serviceFamilies(svc)
	if err != nil {
		families = nil
	}
	sorted := slices.Clone(records)
	rank := func(r ipam.Record) int {
		n := slices.Index(families, familyOf(r.Address))
		if role(r) == v1alpha1.RoleInner {
			n += 10
		}
		return n
	}
	slices.SortStableFunc(sorted, func(a, b ipam.Record) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return a.Address.Compare(b.Address)
	})
	st := &corev1.LoadBalancerStatus{}
	for _, r := range sorted {
		st.Ingress = append(st.Ingress, corev1.LoadBalancerIngress{
			IP:     r.Address.String(),
			IPMode: ptr.To(corev1.LoadBalancerIPModeVIP), // nil costs one more patch each time
		})
	}
	return st
}
