package node

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// kube is what the agent reads and writes of Kubernetes' own objects. client-go's
// clientset has the types of all of Kubernetes in it, which no agent looks at and
// each node would pay for with 15 MiB of memory.
type kube interface {
	Nodes() cache.ListerWatcher
	EndpointSlices() cache.ListerWatcher
	Events(ctx context.Context) record.EventSink
	// DaemonSet reads one; an error that it is not there is apierrors.IsNotFound.
	DaemonSet(ctx context.Context, namespace, name string) (*daemonSet, error)
}

// daemonSet is what the agent looks at of the DaemonSet that runs it.
type daemonSet struct {
	Metadata struct {
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Template struct {
			Spec struct {
				NodeSelector map[string]string `json:"nodeSelector"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

// kubeTypes are the types that the agent knows.
var kubeTypes = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // the types contradict themselves
		}
	}
	metav1.AddToGroupVersion(s, metav1.SchemeGroupVersion)
	return s
}()

// kubeClient is the kube of an API server.
type kubeClient struct{ core, discovery *rest.RESTClient }

func newKube(cfg *rest.Config) (*kubeClient, error) {
	core, err := restClient(cfg, corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return nil, err
	}
	discovery, err := restClient(cfg, discoveryv1.SchemeGroupVersion, "/apis")
	return &kubeClient{core, discovery}, err
}

func restClient(cfg *rest.Config, group schema.GroupVersion, path string) (*rest.RESTClient, error) {
	c := rest.CopyConfig(cfg)
	c.GroupVersion, c.APIPath = &group, path
	c.ContentType = runtime.ContentTypeJSON
	// Protobuf leaves less behind when a list of thousands is read.
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c.NegotiatedSerializer = serializer.NewCodecFactory(kubeTypes).WithoutConversion()
	rc, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", group, err)
	}
	return rc, nil
}

func (k *kubeClient) Nodes() cache.ListerWatcher {
	c := gentype.NewClientWithList("nodes", k.core, runtime.NewParameterCodec(kubeTypes), "",
		func() *corev1.Node { return &corev1.Node{} }, func() *corev1.NodeList { return &corev1.NodeList{} })
	return listWatch(c.List, c.Watch)
}

func (k *kubeClient) EndpointSlices() cache.ListerWatcher {
	c := gentype.NewClientWithList("endpointslices", k.discovery, runtime.NewParameterCodec(kubeTypes), metav1.NamespaceAll,
		func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		func() *discoveryv1.EndpointSliceList { return &discoveryv1.EndpointSliceList{} })
	return listWatch(c.List, c.Watch)
}

func listWatch[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error),
	watchAll func(context.Context, metav1.ListOptions) (watch.Interface, error),
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return list(ctx, o)
		},
		WatchFuncWithContext: watchAll,
	}
}

func (k *kubeClient) DaemonSet(ctx context.Context, namespace, name string) (*daemonSet, error) {
	raw, err := k.core.Get().AbsPath("/apis/apps/v1/namespaces", namespace, "daemonsets", name).
		SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	d := &daemonSet{}
	return d, json.Unmarshal(raw, d)
}

func (k *kubeClient) Events(ctx context.Context) record.EventSink { return eventSink{ctx, k.core} }

// eventSink writes events where their objects are. The recorder behind it tries
// again, without a context of its own.
type eventSink struct {
	ctx  context.Context
	core *rest.RESTClient
}

func (s eventSink) in(namespace string) *gentype.Client[*corev1.Event] {
	return gentype.NewClient("events", s.core, runtime.NewParameterCodec(kubeTypes), namespace,
		func() *corev1.Event { return &corev1.Event{} })
}

func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, patchTimeout)
	defer cancel()
	return s.in(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
}

func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, patchTimeout)
	defer cancel()
	return s.in(e.Namespace).Update(ctx, e, metav1.UpdateOptions{})
}

func (s eventSink) Patch(e *corev1.Event, data []byte) (*corev1.Event, error) {
	ctx, cancel := context.WithTimeout(s.ctx, patchTimeout)
	defer cancel()
	return s.in(e.Namespace).Patch(ctx, e.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{})
}
