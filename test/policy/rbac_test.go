package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

// permissions is everything that our programs may do, and nothing else: role,
// group/resource (and names), verbs. A new line here is a decision: it needs a
// reason in the role's comment and in docs/reference/rbac.md.
var permissions = []string{
	"onelb:cloud-controller-manager /nodes: delete get list patch update watch",
	"onelb:cloud-controller-manager /nodes/status: patch",
	"onelb:cloud-controller-manager /services: get list watch",
	"onelb:cloud-controller-manager /services/status: patch update",
	"onelb:cloud-controller-manager /events: create patch update",
	"onelb:cloud-controller-manager /namespaces [kube-system]: get",
	"onelb:cloud-controller-manager /namespaces: list watch",
	"onelb:cloud-controller-manager discovery.k8s.io/endpointslices: get list watch",
	"onelb:cloud-controller-manager onelb.io/addresspools: get list patch watch",
	"onelb:cloud-controller-manager onelb.io/addresspools/status: patch",
	"onelb:cloud-controller-manager onelb.io/virtualips: create delete get list patch watch",
	"onelb:cloud-controller-manager onelb.io/virtualips/status: patch",
	"onelb-system/cloud-controller-manager /secrets: create",
	"onelb-system/cloud-controller-manager /secrets [onelb-gossip]: get",
	"onelb-system/cloud-controller-manager coordination.k8s.io/leases: create",
	"onelb-system/cloud-controller-manager coordination.k8s.io/leases [cloud-controller-manager onelb-fencing]: get update",
	"onelb-system/onelb-node apps/daemonsets [onelb-node]: get",
	"onelb:node /nodes: get list watch",
	"onelb:node /events: create patch",
	"onelb:node discovery.k8s.io/endpointslices: get list watch",
	"onelb:node onelb.io/virtualips: get list watch",
	"onelb:node onelb.io/virtualips/status: patch",
	"onelb:node onelb.io/addresspools: list watch",
	"onelb:node onelb.io/bgpconfigurations: list watch",
	"onelb:node onelb.io/bgppeers: list watch",
	"onelb:node onelb.io/bgpnodes: create list watch",
	"onelb:node onelb.io/bgpnodes/status: patch",
}

// lines writes the rules of a role in the form of permissions.
func lines(role string, rules []rbacv1.PolicyRule) []string {
	var out []string
	for _, rule := range rules {
		verbs := strings.Join(slices.Sorted(slices.Values(rule.Verbs)), " ")
		names := ""
		if len(rule.ResourceNames) > 0 {
			names = fmt.Sprintf(" %v", slices.Sorted(slices.Values(rule.ResourceNames)))
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				out = append(out, fmt.Sprintf("%s %s/%s%s: %s", role, group, resource, names, verbs))
			}
		}
		for _, url := range rule.NonResourceURLs {
			out = append(out, fmt.Sprintf("%s URL %s: %s", role, url, verbs))
		}
	}
	return out
}

func TestRolesAreExactlyWhatIsNeeded(t *testing.T) {
	var got []string
	for _, role := range all[*rbacv1.ClusterRole](t) {
		if role.AggregationRule != nil {
			t.Errorf("ClusterRole %s aggregates others: what it may do would not stand here", role.Name)
		}
		got = append(got, lines(role.Name, role.Rules)...)
	}
	for _, role := range all[*rbacv1.Role](t) {
		got = append(got, lines(role.Namespace+"/"+role.Name, role.Rules)...)
	}
	for _, line := range got {
		if !slices.Contains(permissions, line) {
			t.Errorf("granted, but not in the list of what is needed: %s", line)
		}
	}
	for _, line := range permissions {
		if !slices.Contains(got, line) {
			t.Errorf("needed, but not granted: %s", line)
		}
	}
}

func TestNothingNeededIsDangerous(t *testing.T) {
	for _, line := range permissions {
		role, _, _ := strings.Cut(line, " ")
		for _, word := range []string{"*", "escalate", "impersonate", " bind", "pods", "serviceaccounts", "clusterrole"} {
			if strings.Contains(line, word) {
				t.Errorf("%q: with %s a stolen token could take over the cluster", line, word)
			}
		}
		if strings.Contains(line, "/secrets") && !strings.HasPrefix(role, "onelb-system/") {
			t.Errorf("%q: secrets of other namespaces are none of our business", line)
		}
	}
}

// builtin are the roles of Kubernetes that we bind, both for asking the API
// server who may read metrics.
var builtin = []string{"ClusterRole system:auth-delegator", "Role extension-apiserver-authentication-reader"}

func TestBindingsAreToOurAccountsOnly(t *testing.T) {
	type binding struct {
		name     string
		ref      rbacv1.RoleRef
		subjects []rbacv1.Subject
	}
	var bindings []binding
	for _, b := range all[*rbacv1.ClusterRoleBinding](t) {
		bindings = append(bindings, binding{b.Name, b.RoleRef, b.Subjects})
	}
	for _, b := range all[*rbacv1.RoleBinding](t) {
		bindings = append(bindings, binding{b.Namespace + "/" + b.Name, b.RoleRef, b.Subjects})
	}
	ours := []string{"ClusterRole onelb:cloud-controller-manager", "ClusterRole onelb:node", "Role cloud-controller-manager", "Role onelb-node"}
	for _, b := range bindings {
		role := b.ref.Kind + " " + b.ref.Name
		if !slices.Contains(ours, role) && !slices.Contains(builtin, role) {
			t.Errorf("%s binds %s, which is neither ours nor needed", b.name, role)
		}
		if len(b.subjects) != 1 {
			t.Errorf("%s has %d subjects, want one", b.name, len(b.subjects))
		}
		for _, s := range b.subjects {
			account := s.Name == "cloud-controller-manager" || s.Name == "onelb-node"
			if s.Kind != rbacv1.ServiceAccountKind || s.Namespace != "onelb-system" || !account {
				t.Errorf("%s binds %s %s/%s, which is not one of our service accounts", b.name, s.Kind, s.Namespace, s.Name)
			}
			if s.Name == "onelb-node" && role != "ClusterRole onelb:node" && role != "Role onelb-node" {
				t.Errorf("%s gives the node agent %s: its token is on every node", b.name, role)
			}
		}
	}
}

// TestOptionalRightsAreExactlyThese: what a component adds is chosen by the
// operator, and small.
func TestOptionalRightsAreExactlyThese(t *testing.T) {
	var got []string
	for _, list := range objects(t, "manifests/components") {
		for _, object := range list {
			switch o := object.(type) {
			case *rbacv1.ClusterRole:
				got = append(got, lines(o.Name, o.Rules)...)
			case *rbacv1.ClusterRoleBinding:
				if len(o.Subjects) != 1 || o.Subjects[0].Name != "cloud-controller-manager" || o.Subjects[0].Namespace != "onelb-system" {
					t.Errorf("%s binds %v", o.Name, o.Subjects)
				}
			default:
				t.Errorf("a component holds a %T", object)
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"onelb:offered-pools onelb.io/addresspools: create delete",
		"onelb:page URL /onelb/*: get", // for people
		"onelb:page coordination.k8s.io/leases [onelb-fencing]: get",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
