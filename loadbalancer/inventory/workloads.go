package inventory

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Workload is a Deployment or a DaemonSet of the cluster, anybody's.
type Workload struct {
	Kind, Namespace, Name string
	Pod                   corev1.PodSpec
	// Wanted is how many pods there shall be now.
	Wanted int32
}

// String names it for people.
func (w Workload) String() string { return fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name) }

// Says reports whether a container has the word in its command, arguments or
// environment (as NAME=value).
func (w Workload) Says(word string) bool {
	for _, c := range w.Pod.Containers {
		if slices.Contains(c.Command, word) || slices.Contains(c.Args, word) {
			return true
		}
		for _, e := range c.Env {
			if e.Name+"="+e.Value == word {
				return true
			}
		}
	}
	return false
}

// Value is what follows a prefix such as --class= in the command or the arguments
// of a container; empty if there is none.
func (w Workload) Value(prefix string) string {
	for _, c := range w.Pod.Containers {
		for _, a := range append(slices.Clone(c.Command), c.Args...) {
			if v, ok := strings.CutPrefix(a, prefix); ok && v != "" {
				return v
			}
		}
	}
	return ""
}

// Runs reports whether a container has an image of that name.
func (w Workload) Runs(image *regexp.Regexp) bool {
	return slices.ContainsFunc(w.Pod.Containers, func(c corev1.Container) bool { return image.MatchString(c.Image) })
}

// Workloads reads the Deployments and DaemonSets of all namespaces.
func Workloads(ctx context.Context, c kubernetes.Interface) ([]Workload, error) {
	deployments, err := c.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	sets, err := c.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []Workload
	for i := range deployments.Items {
		d := &deployments.Items[i]
		wanted := int32(1)
		if d.Spec.Replicas != nil {
			wanted = *d.Spec.Replicas
		}
		out = append(out, Workload{Kind: "Deployment", Namespace: d.Namespace, Name: d.Name, Pod: d.Spec.Template.Spec, Wanted: wanted})
	}
	for i := range sets.Items {
		d := &sets.Items[i]
		out = append(out, Workload{Kind: "DaemonSet", Namespace: d.Namespace, Name: d.Name, Pod: d.Spec.Template.Spec, Wanted: d.Status.DesiredNumberScheduled})
	}
	return out, nil
}
