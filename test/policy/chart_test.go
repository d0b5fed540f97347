package policy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/provider/config"
)

const chart = "manifests/chart"

// helm builds the renderer, once.
var helm = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "build", "helm")
	c := exec.Command("go", "build", "-C", filepath.Join(dir, "test/helm"), "-o", program, ".") //nolint:noctx // bounded by the test's own deadline
	c.Env = append(os.Environ(), "CGO_ENABLED=0")                                               // also under the race detector, so that it is built once
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build test/helm: %w\n%s", err, out)
	}
	return program, nil
})

// render renders the chart with values, as YAML.
func render(t *testing.T, values ...string) (string, error) {
	t.Helper()
	program, err := helm()
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, v := range values {
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-f", file)
	}
	c := exec.CommandContext(t.Context(), program, append(args, filepath.Join(root, chart))...)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		return "", errors.New(problems.String())
	}
	return out.String(), nil
}

// decoded decodes YAML documents strictly, by kind, namespace and name.
func decoded(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	out := map[string]runtime.Object{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(bytes.ReplaceAll(document, []byte("---"), nil))) == 0 {
			continue
		}
		object, _, err := decoder(t).Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		name := key(t, object)
		if out[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		out[name] = object
	}
}

func key(t *testing.T, o runtime.Object) string {
	t.Helper()
	m, err := meta.Accessor(o)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{o.GetObjectKind().GroupVersionKind().Kind, m.GetNamespace(), m.GetName()}, "/")
}

// built is what kustomize makes of the base: its objects, with the images' tags.
func built(t *testing.T) map[string]runtime.Object {
	t.Helper()
	var k struct {
		Images []struct{ Name, NewTag string } `json:"images"`
	}
	if err := yaml.Unmarshal([]byte(read(t, base+"/kustomization.yaml")), &k); err != nil {
		t.Fatal(err)
	}
	out := map[string]runtime.Object{}
	for _, list := range objects(t, base) {
		for _, o := range list {
			out[key(t, o)] = o
			for _, c := range containers(o) {
				i := slices.IndexFunc(k.Images, func(x struct{ Name, NewTag string }) bool { return x.Name == c.Image })
				if i < 0 {
					t.Fatalf("the kustomization has no tag for %s", c.Image)
				}
				c.Image += ":" + k.Images[i].NewTag
			}
		}
	}
	return out
}

func containers(o runtime.Object) []*corev1.Container {
	var spec *corev1.PodSpec
	switch w := o.(type) {
	case *appsv1.Deployment:
		spec = &w.Spec.Template.Spec
	case *appsv1.DaemonSet:
		spec = &w.Spec.Template.Spec
	default:
		return nil
	}
	var out []*corev1.Container
	for i := range spec.Containers {
		out = append(out, &spec.Containers[i])
	}
	return out
}

// TestChartIsTheBase: with its default values the chart makes the very objects of
// the kustomize base. The namespace is helm's to make: a release lives in it.
func TestChartIsTheBase(t *testing.T) {
	text, err := render(t)
	if err != nil {
		t.Fatal(err)
	}
	want := built(t)
	delete(want, "Namespace//onelb-system")
	if diff := cmp.Diff(want, decoded(t, text)); diff != "" {
		t.Errorf("kustomize base (-), chart (+):\n%s", diff)
	}
}

func TestChartValues(t *testing.T) {
	text, err := render(t, read(t, "test/helm/testdata/everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got := decoded(t, text)
	d, _ := got["Deployment/onelb-system/opennebula-cloud-controller-manager"].(*appsv1.Deployment)
	a, _ := got["DaemonSet/onelb-system/onelb-node"].(*appsv1.DaemonSet)
	s, _ := got["Secret/onelb-system/other"].(*corev1.Secret)
	p, _ := got["AddressPool//edge"].(*v1alpha1.AddressPool)
	if d == nil || a == nil || s == nil || p == nil || got["ClusterRole//onelb:offered-pools"] == nil || got["ClusterRole//onelb:page"] == nil || got["PodDisruptionBudget/onelb-system/opennebula-cloud-controller-manager"] != nil {
		t.Fatalf("objects: %v", got)
	}
	m, n := d.Spec.Template.Spec, a.Spec.Template.Spec
	if *d.Spec.Replicas != 1 || m.Containers[0].Image != "registry.example.org:5000/ccm:v1" || m.ImagePullSecrets[0].Name != "registry" || m.NodeSelector["infra"] != "true" || m.PriorityClassName != "mine" ||
		!slices.Contains(m.Containers[0].Args, "--default-class=false") || !slices.Contains(m.Containers[0].Args, "--page-port=10300") || m.Containers[0].Ports[1].HostPort != 10300 || !slices.Contains(m.Containers[0].Args, "--orphans=report") || !slices.Contains(m.Containers[0].Args, "--v=4") ||
		m.Tolerations[len(m.Tolerations)-1].Key != "infra" || m.Containers[0].Env[0].Value != "10.30.0.1" || m.Volumes[0].Projected.Sources[0].Secret.Name != "other" || m.Volumes[0].Projected.Sources[1].Secret.Name != "client" {
		t.Errorf("%+v", m)
	}
	if n.Containers[0].Image != "registry.example.org:5000/node:v2" || n.PriorityClassName != "" || n.NodeSelector["edge"] != "true" || a.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue() != 2 ||
		!slices.Contains(n.Containers[0].Args, "--gossip-port=7950") || n.Containers[0].Ports[0].HostPort != 7950 || len(n.Containers[0].Env) != 4 {
		t.Errorf("%+v", n)
	}
	if s.StringData["one_auth"] != "k8s:secret" || p.Spec.Router.Name != "edge" || p.Annotations["helm.sh/resource-policy"] != "keep" {
		t.Errorf("%+v\n%+v", s, p)
	}
	if _, err := config.Parse(strings.NewReader(s.StringData["cloud-config.yaml"])); err != nil {
		t.Errorf("the program refuses the cloud-config of the chart: %v", err)
	}
}

func TestChartRefusesBadValues(t *testing.T) {
	for _, tt := range []struct{ values, want string }{
		{"manger: {}", "manger"},
		{"manager: {replicas: 0}", "replicas"},
		{"manager: {image: {pullPolicy: Sometimes}}", "pullPolicy"},
		{"cloudConfig: {config: {endpoint: 'http://a/RPC2', cluster: lab}, oneAuth: 'a:b'}", "credentials"},
		{"cloudConfig: {config: {endpoint: 'http://a/RPC2', credentials: {file: /a}, cluster: lab}}", "cloudConfig.oneAuth"},
		{"pools: [{name: main}]", "spec"},
	} {
		if _, err := render(t, tt.values); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that names %s", tt.values, err, tt.want)
		}
	}
}

func TestChartHasTheCRDs(t *testing.T) {
	for _, file := range tree(t) {
		if crd, ok := strings.CutPrefix(file, base+"/crds/"); ok && read(t, file) != read(t, chart+"/crds/"+crd) {
			t.Errorf("%s is not that of the chart: run make generate", file)
		}
	}
}
