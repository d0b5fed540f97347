package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/test/lab/proc"
)

// Pod is a pod with a namespace of its own on a node, in which a server answers,
// and with a Pod object in the API. It is a client as well.
type Pod struct {
	*Host
	name, namespace string
	node            *Node
	addrs           []netip.Addr
	port            string // the node's end of the veth pair
	server          *proc.Unit
}

// Node is where the pod runs.
func (p *Pod) Node() *Node { return p.node }

// PodName is the name of the Pod object.
func (p *Pod) PodName() string { return p.name }

// PodIPs are the pod's addresses, IPv4 first.
func (p *Pod) PodIPs() []netip.Addr { return p.addrs }

// Server is the program that answers.
func (p *Pod) Server() *proc.Unit { return p.server }

func (p *Pod) key() string { return p.namespace + "/" + p.name }

// newPod makes the namespace and the server, and then the Pod object, ready.
func (l *Lab) newPod(ctx context.Context, w Workload, name string, n *Node) (*Pod, error) {
	h, err := l.addHost("pod-"+w.Namespace+"-"+name, false)
	if err != nil {
		return nil, err
	}
	addrs, number := n.newPodAddrs()
	p := &Pod{
		Host: h, name: name, namespace: w.Namespace, node: n, addrs: addrs,
		port: "pod" + strconv.Itoa(number),
	}
	if err := p.connect(); err != nil {
		return nil, err
	}
	p.server = l.unit(h, h.ShortName(), l.program("labpod"), p.args(w)...)
	if err := p.server.Start(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.pods[p.key()] = p
	l.mu.Unlock()
	if err := p.waitServer(ctx, w); err != nil {
		return nil, err
	}
	return p, p.create(ctx, w)
}

func (p *Pod) args(w Workload) []string {
	args := []string{"--name=" + p.name, "--node=" + p.node.ShortName()}
	for _, port := range w.Ports {
		args = append(args, "--"+strings.ToLower(string(port.Protocol))+"="+strconv.Itoa(int(port.Port)))
	}
	return args
}

// connect links the pod to its node, point to point, as routing CNI plugins do.
func (p *Pod) connect() error {
	nl, err := p.node.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: p.port},
		PeerName:         "eth0",
		PeerHardwareAddr: macFor(p.addrs),
		PeerNamespace:    netlink.NsFd(p.FD()),
	}
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s to %s: %w", p.ShortName(), p.node.ShortName(), err)
	}
	gateways := podGateway(p.node.index)
	if err := p.node.configure(p.port, host(gateways[0]), host(gateways[1])); err != nil {
		return err
	}
	if err := p.configure("eth0", host(p.addrs[0]), host(p.addrs[1])); err != nil {
		return err
	}
	var errs []error
	for i := range p.addrs {
		errs = append(errs,
			p.node.route(host(p.addrs[i]), p.port, netip.Addr{}),
			p.route(host(gateways[i]), "eth0", netip.Addr{}))
	}
	return errors.Join(append(errs, p.defaultRoute("eth0", gateways))...)
}

// waitServer returns when the TCP ports accept connections; UDP needs no longer.
func (p *Pod) waitServer(ctx context.Context, w Workload) error {
	return p.node.lab.wait(ctx, p.ShortName(), []*proc.Unit{p.server}, func(ctx context.Context) error {
		for _, port := range w.Ports {
			if port.Protocol != corev1.ProtocolTCP {
				continue
			}
			conn, err := p.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port.Port))))
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		return nil
	})
}

// create makes the Pod object on its node and reports it running.
func (p *Pod) create(ctx context.Context, w Workload) error {
	client := p.node.lab.client
	container := corev1.Container{Name: "labpod", Image: "labpod"}
	for _, port := range w.Ports {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			Name: port.Name, ContainerPort: port.Port, Protocol: port.Protocol,
		})
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: p.namespace, Labels: w.Labels},
		Spec: corev1.PodSpec{
			NodeName: p.node.ShortName(), AutomountServiceAccountToken: new(false),
			Containers:  []corev1.Container{container},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
	err := p.node.lab.wait(ctx, "pod "+p.key()+" to be admitted", []*proc.Unit{p.node.lab.plane.controllerManager}, func(ctx context.Context) error {
		// A new namespace has no service account for a moment.
		_, err := client.CoreV1().Pods(p.namespace).Create(ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return p.report(ctx, client)
}

// report writes the status of a running and ready pod.
func (p *Pod) report(ctx context.Context, client kubernetes.Interface) error {
	return p.setReady(ctx, client, corev1.ConditionTrue)
}

// SetReady changes the pod's readiness in the API; its server goes on.
func (p *Pod) SetReady(ctx context.Context, ready bool) error {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return p.setReady(ctx, p.node.lab.client, status)
}

func (p *Pod) setReady(ctx context.Context, client kubernetes.Interface, ready corev1.ConditionStatus) error {
	now := metav1.Now()
	condition := func(kind corev1.PodConditionType, status corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now}
	}
	nodeIP := p.node.Addrs(Private)
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		PodIP: p.addrs[0].String(), PodIPs: podIPs(p.addrs),
		HostIP: nodeIP[0].String(), HostIPs: []corev1.HostIP{{IP: nodeIP[0].String()}, {IP: nodeIP[1].String()}},
		Conditions: []corev1.PodCondition{
			condition(corev1.PodScheduled, corev1.ConditionTrue), condition(corev1.PodInitialized, corev1.ConditionTrue),
			condition(corev1.ContainersReady, ready), condition(corev1.PodReady, ready),
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "labpod", Image: "labpod", ImageID: "labpod", ContainerID: "lab://" + p.key(),
			Ready: ready == corev1.ConditionTrue, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("status of pod %s: %w", p.key(), err)
	}
	return nil
}

// Delete ends the server and removes the Pod object, the link and the namespace.
func (p *Pod) Delete(ctx context.Context) error {
	l := p.node.lab
	err := l.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	errs := []error{err, p.server.Kill(), p.disconnect(), p.Host.Namespace.Delete()}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, p.key())
	delete(l.hosts, p.ShortName())
	return errors.Join(errs...)
}

func (p *Pod) disconnect() error {
	nl, err := p.node.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(p.port)
	if err != nil {
		return fmt.Errorf("link of %s: %w", p.ShortName(), err)
	}
	return nl.LinkDel(link)
}
