package e2e_test

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/lab"
)

// right is "verb resource.group/subresource[:name]"; a namespace follows an @.
func parseRight(s string) *authorizationv1.ResourceAttributes {
	verb, rest, _ := strings.Cut(s, " ")
	rest, space, _ := strings.Cut(rest, "@")
	rest, name, _ := strings.Cut(rest, ":")
	rest, sub, _ := strings.Cut(rest, "/")
	resource, group, _ := strings.Cut(rest, ".")
	return &authorizationv1.ResourceAttributes{Verb: verb, Resource: resource, Group: group, Subresource: sub, Name: name, Namespace: space}
}

// TestLeastPrivilege asks the API server what the accounts of the manifests may
// do. That it is enough, every other test shows: the programs use them.
func TestLeastPrivilege(t *testing.T) {
	w := newWorld(t)
	for account, rights := range map[string]struct{ may, mayNot []string }{
		"onelb-node": {
			may: []string{"watch virtualips.onelb.io", "patch virtualips.onelb.io/status", "watch endpointslices.discovery.k8s.io", "create events@default"},
			mayNot: []string{
				"list secrets", "get secrets@onelb-system", "get secrets:onelb-gossip@onelb-system", "create secrets@onelb-system",
				"delete nodes", "patch nodes", "patch nodes/status", "update nodes", "list pods", "get services", "patch services/status",
				"create virtualips.onelb.io", "patch virtualips.onelb.io", "update virtualips.onelb.io", "delete virtualips.onelb.io",
				"patch addresspools.onelb.io", "get addresspools.onelb.io", "create leases.coordination.k8s.io@onelb-system",
				"create pods@onelb-system", "create serviceaccounts/token@onelb-system", "create clusterrolebindings.rbac.authorization.k8s.io",
				"get configmaps@kube-system", "get namespaces",
			},
		},
		"cloud-controller-manager": {
			may: []string{
				"delete nodes", "patch services/status@default", "create virtualips.onelb.io", "delete virtualips.onelb.io",
				"get secrets:onelb-gossip@onelb-system", "get namespaces:kube-system", "list namespaces", "patch addresspools.onelb.io/status",
			},
			mayNot: []string{
				"list secrets", "list secrets@onelb-system", "get secrets@default", "get secrets:other@onelb-system", "update secrets:onelb-gossip@onelb-system",
				"delete secrets:onelb-gossip@onelb-system", "create secrets@kube-system", "list pods", "get pods@default", "create pods@onelb-system",
				"patch services@default", "update services@default", "delete services@default", "create services@default",
				"create addresspools.onelb.io", "delete addresspools.onelb.io", "update addresspools.onelb.io", "get namespaces:default", "patch namespaces:default",
				"create nodes", "create serviceaccounts/token@onelb-system", "create clusterrolebindings.rbac.authorization.k8s.io",
				"update leases.coordination.k8s.io:other@onelb-system", "create leases.coordination.k8s.io@kube-system", "impersonate users",
			},
		},
	} {
		for want, list := range map[bool][]string{true: rights.may, false: rights.mayNot} {
			for _, r := range list {
				if got := w.may(account, r); got != want {
					t.Errorf("%s may %s: %v, want %v", account, r, got, want)
				}
			}
		}
	}
}

func (w *world) may(account, right string) bool {
	w.T.Helper()
	user := "system:serviceaccount:" + lab.SystemNamespace + ":" + account
	review, err := w.Client().AuthorizationV1().SubjectAccessReviews().Create(w.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, ResourceAttributes: parseRight(right),
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + lab.SystemNamespace, "system:authenticated"},
		},
	}, metav1.CreateOptions{})
	w.Must(err)
	return review.Status.Allowed
}

// TestCanI asks as an administrator would.
func TestCanI(t *testing.T) {
	w := newWorld(t)
	for _, account := range []string{"onelb-node", "cloud-controller-manager"} {
		out, err := w.Kubectl(w.Context(), "auth", "can-i", "list", "secrets", "--all-namespaces", "--as=system:serviceaccount:"+lab.SystemNamespace+":"+account)
		if err == nil || strings.TrimSpace(out) == "yes" {
			t.Errorf("%s may list secrets: %s", account, out)
		}
	}
}
