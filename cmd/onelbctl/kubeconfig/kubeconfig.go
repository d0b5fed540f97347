// Package kubeconfig finds the cluster that a command is about, and makes the
// clients with which it is read. It calls nobody by itself.
package kubeconfig

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Flags find the cluster as kubectl does: flag, KUBECONFIG, ~/.kube/config,
// and in a pod its service account.
type Flags struct {
	path, context string
}

// AddFlags adds --kubeconfig and --context.
func (k *Flags) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&k.path, "kubeconfig", "", "kubeconfig file; default: that of kubectl")
	f.StringVar(&k.context, "context", "", "context of the kubeconfig; default: its current one")
}

func (k *Flags) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.path
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.context})
}

// Namespace is the one of the context.
func (k *Flags) Namespace() (string, error) {
	name, _, err := k.loader().Namespace()
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	return name, nil
}

// Config is how the API server is reached.
func (k *Flags) Config() (*rest.Config, error) {
	cfg, err := k.loader().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 50, 100 // a person waits, and pages are few
	return cfg, nil
}

// Connect makes the clients. It does not call the API server yet.
func (k *Flags) Connect() (inventory.Clients, error) {
	cfg, err := k.Config()
	if err != nil {
		return inventory.Clients{}, err
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return inventory.Clients{}, fmt.Errorf("kubeconfig: %w", err)
	}
	ours, err := client.New(cfg)
	if err != nil {
		return inventory.Clients{}, fmt.Errorf("kubeconfig: %w", err)
	}
	return inventory.Clients{Kube: kube, OneLB: ours}, nil
}
