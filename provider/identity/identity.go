// Package identity tells clusters apart, also those of one name: everything that
// a cluster has in OpenNebula and on routers is signed with its identity.
package identity

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// text is what a file may say: it is an attribute in OpenNebula and part of what
// routers are told.
var text = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Of returns the identity of a cluster: what stands in the file, or without one
// the UID of namespace kube-system, which ends with etcd. kube is not asked if
// there is a file.
func Of(ctx context.Context, kube kubernetes.Interface, file string) (string, error) {
	if file != "" {
		return read(file)
	}
	ns, err := kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the cluster's identity from namespace %s: %w", metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

func read(file string) (string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("read the cluster's identity: %w", err)
	}
	identity := strings.TrimSpace(string(b))
	if !text.MatchString(identity) {
		return "", fmt.Errorf("identityFile %s: %.140q is no identity: one line of at most 128 letters, digits, '-', '_' and '.'", file, identity)
	}
	return identity, nil
}
