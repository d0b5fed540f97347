package inventory

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/onelb/onelb/api/client"
)

// Kubeconfig finds the cluster as kubectl does: flag, KUBECONFIG, ~/.kube/config,
// and in a pod its service account.
type Kubeconfig struct {
	path, context string
}

// AddFlags adds --kubeconfig and --context.
func (k *Kubeconfig) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&k.path, "kubeconfig", "", "kubeconfig file; default: that of kubectl")
	f.StringVar(&k.context, "context", "", "context of the kubeconfig; default: its current one")
}

func (k *Kubeconfig) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.path
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.context})
}

// Namespace is the one of the context.
func (k *Kubeconfig) Namespace() (string, error) {
	name, _, err := k.loader().Namespace()
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	return name, nil
}

// Config is how the API server is reached.
func (k *Kubeconfig) Config() (*rest.Config, error) {
	cfg, err := k.loader().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 50, 100 // a person waits, and pages are few
	return cfg, nil
}

// Connect makes the clients. It does not call the API server yet.
func (k *Kubeconfig) Connect() (Clients, error) {
	cfg, err := k.Config()
	if err != nil {
		return Clients{}, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return Clients{}, fmt.Errorf("kubeconfig: %w", err)
	}
	ours, err := client.New(cfg)
	if err != nil {
		return Clients{}, fmt.Errorf("kubeconfig: %w", err)
	}
	return Clients{Kube: kube, OneLB: ours}, nil
}
