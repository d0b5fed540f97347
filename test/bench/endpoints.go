package bench

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/lab"
)

// setEndpoints makes exactly these pods the endpoints of a Service without
// selector, which need not exist yet.
func (d *datacenter) setEndpoints(ctx context.Context, svc *corev1.Service, pods []*lab.Pod) error {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: svc.Name, Namespace: namespace,
			Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name, discoveryv1.LabelManagedBy: "bench"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range svc.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: new(p.Name), Protocol: new(p.Protocol), Port: new(p.TargetPort.IntVal),
		})
	}
	for _, p := range pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{p.PodIPs()[0].String()}, NodeName: new(p.Node().ShortName()),
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		})
	}
	slices := d.Client().DiscoveryV1().EndpointSlices(namespace)
	_, err := slices.Create(ctx, slice, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("endpoints of %s: %w", svc.Name, err)
	}
	return nil
}

func (d *datacenter) removeEndpoints(ctx context.Context, svc *corev1.Service) error {
	err := d.Client().DiscoveryV1().EndpointSlices(namespace).Delete(ctx, svc.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) { // it may go with its Service
		return fmt.Errorf("endpoints of %s: %w", svc.Name, err)
	}
	return nil
}
