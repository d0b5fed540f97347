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
	"k8s.io/apimachinery/pkg/fields"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/test/lab/kubebin"
)

// gossipSecret holds the key of the node agents' gossip; the CCM makes it.
const gossipSecret = "onelb-gossip"

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
		"crd/addresspools.onelb.io", "crd/virtualips.onelb.io")
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

// mountGossipKey keeps the nodes' files equal to the Secret, as kubelets do with a
// mounted one: from when it exists, and again whenever it changes.
func (l *Lab) mountGossipKey(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.watchGossipKey(ctx); err != nil && ctx.Err() == nil {
			select { // the API server is away
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}

func (l *Lab) watchGossipKey(ctx context.Context) error {
	w, err := l.client.CoreV1().Secrets(SystemNamespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", gossipSecret).String(),
	})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		secret, ok := event.Object.(*corev1.Secret)
		if !ok {
			return fmt.Errorf("watch of Secret %s: %v", gossipSecret, event.Object)
		}
		key := secret.Data["key"]
		if len(key) == 0 {
			continue
		}
		var errs []error
		for _, n := range l.nodes {
			errs = append(errs, writeFileAtomic(l.gossipKeyFile(n), key))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}
