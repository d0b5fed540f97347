package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/test/lab/kubebin"
)

// gossipSecret holds the key of the node agents' gossip; the CCM makes it.
const gossipSecret = "onelb-gossip"

// bgpSecret holds the passwords of BGP peers; the operator makes it.
const bgpSecret = "onelb-bgp"

// ApplyManifests applies the kustomize base as an operator does and returns when
// the API serves the custom resources. Applying it again is harmless. The
// Deployment and the DaemonSet get no pods: the lab runs the programs itself.
func (l *Lab) ApplyManifests(ctx context.Context) error {
	root, err := kubebin.ModuleRoot()
	if err != nil {
		return err
	}
	if _, err := l.Kubectl(ctx, "apply", "-k", filepath.Join(root, "manifests", "base")); err != nil {
		return err
	}
	_, err = l.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout="+l.scaled(30*time.Second).String(),
		"crd/addresspools.onelb.io", "crd/virtualips.onelb.io",
		"crd/bgpconfigurations.onelb.io", "crd/bgppeers.onelb.io", "crd/bgpnodes.onelb.io")
	return err
}

// accountKubeconfig writes a kubeconfig with a token of a service account, as a
// pod of it would have.
func (l *Lab) accountKubeconfig(ctx context.Context, account, path string) error {
	var token string
	err := l.wait(ctx, "a token of "+account, nil, func(ctx context.Context) error {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: ptr.To(int64(certLifetime / time.Second)),
		}}
		reply, err := l.client.CoreV1().ServiceAccounts(SystemNamespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		token = reply.Status.Token
		return nil
	})
	if err != nil {
		return err
	}
	return l.writeKubeconfig(path, APIServerURL(), clientcmdapi.AuthInfo{Token: token})
}

// gossipKeyFile is where a node has the key of the gossip mounted.
func (l *Lab) gossipKeyFile(n *Node) string {
	return l.path("nodes", n.ShortName(), "gossip", "key")
}

// bgpPasswordDir is where a node has the passwords of BGP peers mounted.
func (l *Lab) bgpPasswordDir(n *Node) string {
	return l.path("nodes", n.ShortName(), "bgp")
}

// mountSecrets keeps the nodes' files equal to the Secrets, as kubelets do with
// mounted ones: from when they exist, and again whenever they change.
func (l *Lab) mountSecrets(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.watchSecrets(ctx); err != nil && ctx.Err() == nil {
			select { // the API server is away
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (l *Lab) watchSecrets(ctx context.Context) error {
	w, err := l.client.CoreV1().Secrets(SystemNamespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		secret, ok := event.Object.(*corev1.Secret)
		if !ok {
			return fmt.Errorf("watch of Secrets: %v", event.Object)
		}
		var errs []error
		for _, n := range l.nodes {
			errs = append(errs, l.mount(n, secret))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// mount writes what a node has of a Secret.
func (l *Lab) mount(n *Node, secret *corev1.Secret) error {
	switch key := secret.Data["key"]; {
	case secret.Name == gossipSecret && len(key) > 0:
		return writeFileAtomic(l.gossipKeyFile(n), key)
	case secret.Name == bgpSecret:
		var errs []error
		for name, content := range secret.Data {
			errs = append(errs, writeFileAtomic(filepath.Join(l.bgpPasswordDir(n), name), content))
		}
		return errors.Join(errs...)
	}
	return nil
}
