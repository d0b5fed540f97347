package appliance

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

// Unservable says why a stock appliance cannot do what a Service asks for, beside
// IPv6; nil if it can.
func Unservable(svc *corev1.Service) error {
	var errs []error
	if len(svc.Spec.LoadBalancerSourceRanges) > 0 {
		errs = append(errs, errRanges)
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		errs = append(errs, errAffinity)
	}
	if _, limited := svc.Annotations[annotation.ConnectionLimit.Name]; limited {
		errs = append(errs, errLimit)
	}
	for _, p := range svc.Spec.Ports {
		tcp := slices.ContainsFunc(svc.Spec.Ports, func(o corev1.ServicePort) bool {
			return o.Port == p.Port && (o.Protocol == corev1.ProtocolTCP || o.Protocol == "")
		})
		switch {
		case p.Protocol == corev1.ProtocolSCTP:
			errs = append(errs, errSCTP)
		case p.Protocol == corev1.ProtocolUDP && !tcp:
			errs = append(errs, errUDPOnly)
		}
	}
	return errors.Join(errs...)
}

// UnservablePool says why a stock appliance cannot expose a pool; nil if it can.
func UnservablePool(r *v1alpha1.RouterSpec) error {
	var errs []error
	if r.Forward != v1alpha1.ForwardVIP {
		errs = append(errs, errSpread)
	}
	if r.SNAT != "" && r.SNAT != v1alpha1.SNATAuto {
		errs = append(errs, errSNAT)
	}
	return errors.Join(errs...)
}
