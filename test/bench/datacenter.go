package bench

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

const (
	namespace = metav1.NamespaceDefault
	port      = 8765

	lanPool    = "lan"
	routerPool = "internet"
	// ahead is enough that no Service of a measurement that goes step by step
	// waits for OpenNebula.
	ahead = 16
)

var workload = lab.Workload{Name: "echo", Replicas: 3}

// datacenter is a lab with what the measurements need in it.
type datacenter struct {
	*lab.Lab
	onelb *client.Clientset
	pods  []*lab.Pod
	// manyPorts: there will be more Services than there are NodePorts.
	manyPorts bool
}

// sharedLab is the lab of the measurements that leave it as they found it.
func (b *bench) sharedLab(ctx context.Context) (*datacenter, error) {
	if b.shared != nil {
		return b.shared, nil
	}
	d, err := startLab(ctx, lab.Options{Name: "bench"})
	if err != nil {
		return nil, err
	}
	b.shared = d
	if err := d.addPools(ctx, pool(lanPool, "private", "10.20.0.100", "10.20.0.199"), publicPool()); err != nil {
		return nil, err
	}
	d.pods, err = d.StartWorkload(ctx, workload)
	return d, err
}

func (b *bench) closeShared() error {
	if b.shared == nil {
		return nil
	}
	d := b.shared
	b.shared = nil
	return d.Close()
}

// startLab starts a lab with onelb's programs and waits until they are ready.
func startLab(ctx context.Context, o lab.Options) (*datacenter, error) {
	o.Programs = true
	l, err := lab.New(o)
	if err != nil {
		return nil, err
	}
	d := &datacenter{Lab: l}
	if err := d.start(ctx); err != nil {
		_ = l.Close() // the error before it says more
		return nil, err
	}
	return d, nil
}

func (d *datacenter) start(ctx context.Context) error {
	if err := d.Start(ctx); err != nil {
		return err
	}
	if err := d.WaitReady(ctx); err != nil {
		return err
	}
	cfg, err := d.RESTConfig(d.Control())
	if err != nil {
		return err
	}
	d.onelb, err = client.New(cfg)
	return err
}

// pool is an AddressPool with exposure L2.
func pool(name, network, first, last string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.AddressPoolSpec{
			Network: v1alpha1.NetworkReference{Name: network}, Exposure: v1alpha1.ExposureL2,
			Ranges:       []v1alpha1.AddressRange{{Start: first, End: last}},
			ReserveAhead: ptr.To[int32](ahead),
		},
	}
}

func publicPool() *v1alpha1.AddressPool {
	p := pool(routerPool, "public", "203.0.113.100", "203.0.113.199")
	p.Spec.Exposure = v1alpha1.ExposureRouter
	p.Spec.Router = &v1alpha1.RouterSpec{Name: lab.RouterName, Forward: v1alpha1.ForwardNodePort}
	return p
}

// addPools creates pools and returns when each has its addresses reserved ahead.
func (d *datacenter) addPools(ctx context.Context, pools ...*v1alpha1.AddressPool) error {
	for _, p := range pools {
		if _, err := d.onelb.AddressPools().Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create AddressPool %s: %w", p.Name, err)
		}
	}
	for _, p := range pools {
		err := until(ctx, "AddressPool "+p.Name, func(ctx context.Context) error {
			got, err := d.onelb.AddressPools().Get(ctx, p.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !apimeta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.PoolReady) || got.Status.IPv4 == nil {
				return fmt.Errorf("is not ready: %v", got.Status.Conditions)
			}
			if free := got.Status.IPv4.Reserved - got.Status.IPv4.Used; free < int64(*p.Spec.ReserveAhead) {
				return fmt.Errorf("has %d addresses reserved ahead", free)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// service is a Service over the workload, IPv4 only as in the figures that ours
// are compared with.
func service(name, pool string) *corev1.Service {
	s := workload.Service(name, corev1.ServiceTypeLoadBalancer)
	s.Annotations = map[string]string{"onelb.io/pool": pool}
	s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	return s
}

// holder waits until the VirtualIP names a holder.
func (d *datacenter) holder(ctx context.Context, a netip.Addr) (*lab.Node, error) {
	var node *lab.Node
	err := until(ctx, "the holder of "+a.String(), func(ctx context.Context) error {
		v, err := d.onelb.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if v.Status.Holder == nil {
			return fmt.Errorf("VirtualIP %s has none", v.Name)
		}
		i := slices.IndexFunc(d.Nodes(), func(n *lab.Node) bool { return n.ShortName() == v.Status.Holder.Name })
		if i < 0 {
			return fmt.Errorf("VirtualIP %s is held by %q, which is no node", v.Name, v.Status.Holder.Name)
		}
		node = d.Nodes()[i]
		return nil
	})
	return node, err
}

// until repeats f, until it returns nil, for as long as ctx allows.
func until(ctx context.Context, what string, f func(ctx context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if werr := pause(ctx, 20*time.Millisecond); werr != nil {
			return fmt.Errorf("wait for %s: %w; last: %w", what, werr, err)
		}
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
