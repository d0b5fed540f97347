package policy

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// workload is what a Deployment and a DaemonSet have in common.
type workload struct {
	name string
	spec corev1.PodSpec
}

func workloads(t *testing.T) []workload {
	t.Helper()
	var out []workload
	for _, d := range all[*appsv1.Deployment](t) {
		out = append(out, workload{d.Name, d.Spec.Template.Spec})
	}
	for _, d := range all[*appsv1.DaemonSet](t) {
		out = append(out, workload{d.Name, d.Spec.Template.Spec})
	}
	return out
}

// capabilities are what each container may have beyond nothing.
var capabilities = map[string][]corev1.Capability{
	"opennebula-cloud-controller-manager": nil,
	"onelb-node":                          {"NET_ADMIN", "NET_RAW"},
}

func TestSecurityContexts(t *testing.T) {
	for _, w := range workloads(t) {
		if w.spec.SecurityContext == nil || w.spec.SecurityContext.SeccompProfile == nil || w.spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: no seccomp profile RuntimeDefault", w.name)
		}
		if w.spec.HostPID || w.spec.HostIPC {
			t.Errorf("%s: sees the processes of the host, which it does not need", w.name)
		}
		wanted, known := capabilities[w.name]
		if !known {
			t.Errorf("%s: say in capabilities what it may do", w.name)
		}
		for _, c := range w.spec.Containers {
			checkContainer(t, w, c, wanted)
		}
	}
}

func checkContainer(t *testing.T, w workload, c corev1.Container, wanted []corev1.Capability) {
	t.Helper()
	s := c.SecurityContext
	switch {
	case s == nil:
		t.Errorf("%s/%s: no security context", w.name, c.Name)
		return
	case s.Privileged != nil && *s.Privileged:
		t.Errorf("%s/%s: privileged", w.name, c.Name)
	case s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
		t.Errorf("%s/%s: may gain privileges", w.name, c.Name)
	case s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
		t.Errorf("%s/%s: may write to its root file system", w.name, c.Name)
	case s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}):
		t.Errorf("%s/%s: does not drop all capabilities", w.name, c.Name)
	case !slices.Equal(s.Capabilities.Add, wanted):
		t.Errorf("%s/%s: capabilities %v, want %v", w.name, c.Name, s.Capabilities.Add, wanted)
	}
	if len(wanted) == 0 && (w.spec.SecurityContext.RunAsNonRoot == nil || !*w.spec.SecurityContext.RunAsNonRoot) {
		t.Errorf("%s: runs as root without needing it", w.name)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s/%s: needs requests, and a memory limit", w.name, c.Name)
	}
	if !c.Resources.Limits.Cpu().IsZero() {
		t.Errorf("%s/%s: a CPU limit stops it for a while when it is needed most", w.name, c.Name)
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil {
		t.Errorf("%s/%s: needs both probes", w.name, c.Name)
	}
}

func TestWorkloadsStartWithoutAClusterNetwork(t *testing.T) {
	for _, w := range workloads(t) {
		if !w.spec.HostNetwork || w.spec.DNSPolicy != corev1.DNSDefault {
			t.Errorf("%s: without the host's network and DNS it waits for a pod network that waits for it", w.name)
		}
		for _, taint := range []corev1.Taint{
			{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: corev1.TaintEffectNoSchedule},
			{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule},
			{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoExecute},
			{Key: "node.kubernetes.io/network-unavailable", Effect: corev1.TaintEffectNoSchedule},
			{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
		} {
			if !slices.ContainsFunc(w.spec.Tolerations, func(tol corev1.Toleration) bool { return tolerates(tol, taint) }) {
				t.Errorf("%s: does not tolerate %s:%s", w.name, taint.Key, taint.Effect)
			}
		}
		for _, c := range w.spec.Containers {
			for _, text := range slices.Concat(c.Command, c.Args, values(c.Env)) {
				if strings.Contains(text, ".svc") || strings.Contains(text, "cluster.local") {
					t.Errorf("%s/%s: %q is a name of the cluster's DNS, which waits for it", w.name, c.Name, text)
				}
			}
		}
		if len(w.spec.InitContainers) > 0 {
			t.Errorf("%s: has init containers: say what they wait for, and that it does not wait for this", w.name)
		}
		if !strings.HasPrefix(w.spec.PriorityClassName, "system-") {
			t.Errorf("%s: priority class %q: other pods could push it out", w.name, w.spec.PriorityClassName)
		}
	}
}

func values(env []corev1.EnvVar) []string {
	var out []string
	for _, e := range env {
		out = append(out, e.Value)
	}
	return out
}

// tolerates covers the operator Exists, which is all we use.
func tolerates(tol corev1.Toleration, taint corev1.Taint) bool {
	return tol.Operator == corev1.TolerationOpExists &&
		(tol.Key == "" || tol.Key == taint.Key) && (tol.Effect == "" || tol.Effect == taint.Effect)
}

func TestUpdatesGoOneByOne(t *testing.T) {
	for _, d := range all[*appsv1.DaemonSet](t) {
		if r := d.Spec.UpdateStrategy.RollingUpdate; r == nil || r.MaxUnavailable == nil || r.MaxUnavailable.IntValue() != 1 {
			t.Errorf("%s: want maxUnavailable 1", d.Name)
		}
	}
	for _, d := range all[*appsv1.Deployment](t) {
		// Both replicas use a port of the node.
		if r := d.Spec.Strategy.RollingUpdate; r == nil || r.MaxSurge == nil || r.MaxSurge.IntValue() != 0 {
			t.Errorf("%s: want maxSurge 0: a surplus pod finds no free port", d.Name)
		}
	}
}
