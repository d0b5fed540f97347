package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// TargetPort is the port on which pods answer unless a workload says otherwise.
const TargetPort = 9376

// ErrNoNode is returned for the name of a node that the lab has not.
var ErrNoNode = errors.New("no such node in the lab")

// Port is a port that pods listen on.
type Port struct {
	Name     string // default: http for TCP and udp for UDP, and the port
	Port     int32
	Protocol corev1.Protocol // TCP, answered as HTTP, or UDP; default TCP
}

// Workload is a set of equal pods, named <name>-1 and so on.
type Workload struct {
	Namespace string // default: default; made if it does not exist
	Name      string
	Replicas  int               // default 1
	Ports     []Port            // default: TargetPort over TCP and UDP
	Labels    map[string]string // default: app=<name>
	Nodes     []string          // the pods take turns on these; default: all nodes
}

func (w Workload) complete(l *Lab) Workload {
	w.Namespace = cmp.Or(w.Namespace, metav1.NamespaceDefault)
	w.Replicas = cmp.Or(w.Replicas, 1)
	if len(w.Ports) == 0 {
		w.Ports = []Port{{Port: TargetPort, Protocol: corev1.ProtocolTCP}, {Port: TargetPort, Protocol: corev1.ProtocolUDP}}
	}
	w.Ports = slices.Clone(w.Ports)
	for i := range w.Ports {
		p := &w.Ports[i]
		p.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		kind := "http"
		if p.Protocol == corev1.ProtocolUDP {
			kind = "udp"
		}
		p.Name = cmp.Or(p.Name, fmt.Sprintf("%s-%d", kind, p.Port))
	}
	if w.Labels == nil {
		w.Labels = map[string]string{"app": w.Name}
	}
	if len(w.Nodes) == 0 {
		for _, n := range l.nodes {
			w.Nodes = append(w.Nodes, n.ShortName())
		}
	}
	return w
}

// StartWorkload makes the pods and returns when all are running and ready in
// the API, in the order of their names.
func (l *Lab) StartWorkload(ctx context.Context, w Workload) ([]*Pod, error) {
	w = w.complete(l)
	for _, name := range w.Nodes {
		if l.Node(name) == nil {
			return nil, fmt.Errorf("workload %s on %s: %w", w.Name, name, ErrNoNode)
		}
	}
	for _, p := range w.Ports {
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP {
			return nil, fmt.Errorf("workload %s: port %d: protocol %q: want TCP or UDP", w.Name, p.Port, p.Protocol)
		}
	}
	if err := l.ensureNamespace(ctx, w.Namespace); err != nil {
		return nil, err
	}
	pods := make([]*Pod, w.Replicas)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range pods {
		g.Go(func() error {
			var err error
			name := fmt.Sprintf("%s-%d", w.Name, i+1)
			pods[i], err = l.newPod(ctx, w, name, l.Node(w.Nodes[i%len(w.Nodes)]))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return pods, nil
}

func (l *Lab) ensureNamespace(ctx context.Context, name string) error {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := l.client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return nil
}

// Pods are the pods of the lab, by namespace and name.
func (l *Lab) Pods() []*Pod {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*Pod
	for _, p := range l.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Pod) int { return cmp.Compare(a.key(), b.key()) })
	return out
}

// Service is a Service object over the workload's pods: port 8765 for its first
// port, 8766 for its second, and so on, equal numbers where only the protocol
// differs; both families. Callers change what they need before they create it.
func (w Workload) Service(name string, kind corev1.ServiceType) *corev1.Service {
	w = w.complete(&Lab{})
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.Namespace},
		Spec: corev1.ServiceSpec{
			Type: kind, Selector: w.Labels, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
		},
	}
	numbers := map[int32]int32{}
	for _, p := range w.Ports {
		if _, ok := numbers[p.Port]; !ok {
			numbers[p.Port] = 8765 + int32(len(numbers))
		}
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{
			Name: p.Name, Protocol: p.Protocol, Port: numbers[p.Port], TargetPort: intstr.FromInt32(p.Port),
		})
	}
	return svc
}

// CreateService creates a Service in the API and returns it as stored.
func (l *Lab) CreateService(ctx context.Context, svc *corev1.Service) (*corev1.Service, error) {
	created, err := l.client.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create Service %s/%s: %w", svc.Namespace, svc.Name, err)
	}
	return created, nil
}

// DeleteService deletes a Service and returns when the object is gone.
func (l *Lab) DeleteService(ctx context.Context, namespace, name string) error {
	services := l.client.CoreV1().Services(namespace)
	if err := services.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete Service %s/%s: %w", namespace, name, err)
	}
	return l.wait(ctx, "Service "+namespace+"/"+name+" to be gone", nil, func(ctx context.Context) error {
		_, err := services.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return cmp.Or(err, errors.New("still there"))
	})
}

// WaitAddress returns the addresses in a Service's status as soon as there are
// any, by a watch. ctx bounds the wait.
func (l *Lab) WaitAddress(ctx context.Context, namespace, name string) ([]netip.Addr, error) {
	for {
		w, err := l.client.CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
		})
		if err != nil {
			return nil, fmt.Errorf("wait for an address of %s/%s: %w", namespace, name, errors.Join(err, ctx.Err()))
		}
		for event := range w.ResultChan() {
			if svc, ok := event.Object.(*corev1.Service); ok {
				if addrs := statusAddresses(svc); len(addrs) > 0 {
					w.Stop()
					return addrs, nil
				}
			}
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for an address of %s/%s: %w", namespace, name, ctx.Err())
		}
	}
}

func statusAddresses(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// WaitEndpoints returns when a Service has at least n ready endpoints, counted
// by their first address in each family's slice.
func (l *Lab) WaitEndpoints(ctx context.Context, namespace, name string, n int) error {
	return l.wait(ctx, fmt.Sprintf("%d endpoints of %s/%s", n, namespace, name), nil, func(ctx context.Context) error {
		slices, err := l.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{
			LabelSelector: "kubernetes.io/service-name=" + name,
		})
		if err != nil {
			return err
		}
		ready := map[string]bool{}
		for _, slice := range slices.Items {
			for _, e := range slice.Endpoints {
				if e.TargetRef != nil && ptr.Deref(e.Conditions.Ready, false) {
					ready[e.TargetRef.Name] = true
				}
			}
		}
		if len(ready) < n {
			return fmt.Errorf("%d are ready", len(ready))
		}
		return nil
	})
}
