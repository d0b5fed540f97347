package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/onelb/onelb/test/lab/kubebin"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/client-go/util/retry"
	cloudproviderapi "k8s.io/cloud-provider/api"
)

const (
	// leaseDuration and leaseEvery are a kubelet's 40 s and 10 s, shortened in
	// keeping with the controller manager's grace period of 6 s.
	leaseDuration = 8 * time.Second
	leaseEvery    = 2 * time.Second
	// statusEvery is how often the node's status is repeated without a change.
	statusEvery = 10 * time.Second
)

// kubelet is what a kubelet does in the API: it registers its node, renews the
// lease, keeps the node Ready and reports its pods. Its connections start in the
// node's namespace, so a cut management link silences it as it would a real one.
type kubelet struct {
	node *Node

	mu     sync.Mutex // guards all below
	cancel context.CancelFunc
	done   chan struct{}
}

// start registers the node and keeps it alive until stop or the lab's end. It
// returns when the node is registered and Ready.
func (k *kubelet) start(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cancel != nil {
		return fmt.Errorf("kubelet of %s is running already", k.node.ShortName())
	}
	dialer := connrotation.NewDialer(k.node.DialContext)
	client, err := k.node.lab.clientFrom(dialer, k.node.lab.scaled(3*time.Second))
	if err != nil {
		return err
	}
	err = k.node.lab.wait(ctx, k.node.ShortName()+" to register", nil, func(ctx context.Context) error {
		return errors.Join(k.register(ctx, client), k.renew(ctx, client))
	})
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(k.node.lab.ctx)
	k.cancel, k.done = cancel, make(chan struct{})
	done := k.done
	k.node.lab.goInside(func(context.Context) {
		defer close(done)
		defer dialer.CloseAll()
		k.loop(run, client, dialer)
	})
	return nil
}

// stop ends it as a dead node does: without a word to the API server.
func (k *kubelet) stop() {
	k.mu.Lock()
	cancel, done := k.cancel, k.done
	k.cancel = nil
	k.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

func (k *kubelet) loop(ctx context.Context, client kubernetes.Interface, dialer *connrotation.Dialer) {
	ticker := time.NewTicker(leaseEvery)
	defer ticker.Stop()
	reported := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := k.renew(ctx, client)
		if err == nil && time.Since(reported) >= statusEvery {
			if err = k.report(ctx, client); err == nil {
				reported = time.Now()
			}
		}
		if err != nil {
			// As a kubelet: a connection over a link that was cut would hang for
			// long after the link is back. Then the node may be thought dead.
			dialer.CloseAll()
			reported = time.Time{}
		}
	}
}

// register creates the Node as a kubelet with --cloud-provider=external does, or
// takes up the one that exists, and sets it Ready.
func (k *kubelet) register(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Nodes().Create(ctx, k.object(), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := k.report(ctx, client); err != nil {
		return err
	}
	if k.node.lab.options.NodeLifecycle {
		return nil
	}
	return k.clearNotReady(ctx, client)
}

// clearNotReady removes the taint that admission puts on every new Node and that
// only the node lifecycle controller, when it runs, would remove.
func (k *kubelet) clearNotReady(ctx context.Context, client kubernetes.Interface) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, k.node.ShortName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		var taints []corev1.Taint
		for _, t := range node.Spec.Taints {
			if t.Key != corev1.TaintNodeNotReady {
				taints = append(taints, t)
			}
		}
		if len(taints) == len(node.Spec.Taints) {
			return nil
		}
		node.Spec.Taints = taints
		_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
}

// object is the Node at its registration.
func (k *kubelet) object() *corev1.Node {
	name := k.node.ShortName()
	var ips, cidrs []string
	var addresses []corev1.NodeAddress
	for _, a := range k.node.Addrs(Private) {
		ips = append(ips, a.String())
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	for _, p := range podCIDRs(k.node.index) {
		cidrs = append(cidrs, p.String())
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("2"),
		corev1.ResourceMemory: resource.MustParse("4Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
			},
			Annotations: map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: strings.Join(ips, ",")},
		},
		Spec: corev1.NodeSpec{
			PodCIDR: cidrs[0], PodCIDRs: cidrs,
			Taints: []corev1.Taint{{
				Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule,
			}},
		},
		Status: corev1.NodeStatus{
			Addresses: append(addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name}),
			Capacity:  capacity, Allocatable: capacity,
			Conditions: conditions(metav1.Now()),
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: kubebin.KubeVersion, OperatingSystem: "linux", Architecture: "amd64",
				MachineID: k.node.machineID(), SystemUUID: k.node.machineID(),
			},
		},
	}
}

// conditions are those of a healthy node.
func conditions(now metav1.Time) []corev1.NodeCondition {
	healthy := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type: kind, Status: status, Reason: reason, Message: "reported by the lab",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
	}
	return []corev1.NodeCondition{
		healthy(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
		healthy(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
		healthy(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
		healthy(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
	}
}

// report writes the node's conditions and, after the node was thought dead, its
// pods' readiness. Addresses are the cloud provider's after registration.
func (k *kubelet) report(ctx context.Context, client kubernetes.Interface) error {
	name := k.node.ShortName()
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	wanted := conditions(metav1.Now())
	wasReady := true
	for i := range wanted {
		for _, old := range node.Status.Conditions {
			if old.Type == wanted[i].Type && old.Status == wanted[i].Status {
				wanted[i].LastTransitionTime = old.LastTransitionTime
			} else if old.Type == wanted[i].Type && old.Type == corev1.NodeReady {
				wasReady = false
			}
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": wanted}})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil || wasReady {
		return err
	}
	var errs []error
	for _, p := range k.node.pods() {
		err := p.report(ctx, client)
		if !apierrors.IsNotFound(err) { // evicted meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// renew creates or renews the node's lease.
func (k *kubelet) renew(ctx context.Context, client kubernetes.Interface) error {
	name := k.node.ShortName()
	now, seconds := metav1.NowMicro(), int32(leaseDuration/time.Second)
	leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": now}})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}, metav1.CreateOptions{})
	return err
}

// machineID is a made-up UUID that stays the same.
func (n *Node) machineID() string {
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", n.index)
}

// podIPs turns addresses into a Pod's status.
func podIPs(addrs []netip.Addr) []corev1.PodIP {
	var out []corev1.PodIP
	for _, a := range addrs {
		out = append(out, corev1.PodIP{IP: a.String()})
	}
	return out
}
