package policy

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/provider/config"
)

// base is the directory of the kustomize base.
const base = "manifests/base"

// decoder decodes strictly: an unknown or repeated field is an error, as is a
// kind that is neither of Kubernetes nor ours.
func decoder(t *testing.T) runtime.Decoder {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensionsv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
}

// objects decodes every document of the YAML files below dir that holds
// Kubernetes objects.
func objects(t *testing.T, dir string) map[string][]runtime.Object {
	t.Helper()
	decode := decoder(t)
	out := map[string][]runtime.Object{}
	for _, file := range tree(t) {
		if !within(file, dir) || !strings.HasSuffix(file, ".yaml") || path.Base(file) == "kustomization.yaml" {
			continue
		}
		reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(read(t, file))))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			object, _, err := decode.Decode(document, nil, nil)
			if err != nil {
				if runtime.IsMissingKind(err) && within(file, "manifests/examples") {
					continue // configuration of our own, see TestExampleConfiguration
				}
				t.Errorf("%s: %v", file, err)
				continue
			}
			out[file] = append(out[file], object)
		}
	}
	return out
}

// all returns the objects of type T in the base.
func all[T runtime.Object](t *testing.T) []T {
	t.Helper()
	var out []T
	decoded := objects(t, base)
	for _, file := range slices.Sorted(maps.Keys(decoded)) {
		for _, object := range decoded[file] {
			if typed, ok := object.(T); ok {
				out = append(out, typed)
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no %T in %s", *new(T), base)
	}
	return out
}

func TestManifestsDecodeStrictly(t *testing.T) {
	for _, dir := range []string{base, "manifests/examples"} {
		if len(objects(t, dir)) == 0 {
			t.Errorf("no objects in %s", dir)
		}
	}
}

func TestStrictDecodingBites(t *testing.T) {
	for _, document := range []string{
		"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\nautomount: true\n",
		"apiVersion: onelb.io/v1alpha1\nkind: AddressPool\nmetadata: {name: a}\nspec: {exposure: L2, exposur: L2}\n",
		"apiVersion: onelb.io/v1alpha1\nkind: Nothing\nmetadata: {name: a}\n",
	} {
		if _, _, err := decoder(t).Decode([]byte(document), nil, nil); err == nil {
			t.Errorf("accepted:\n%s", document)
		}
	}
}

func TestExampleConfiguration(t *testing.T) {
	if _, err := config.Load(root + "/manifests/examples/cloud-config.yaml"); err != nil {
		t.Error(err)
	}
}

func TestKustomizationListsEveryFile(t *testing.T) {
	var kustomization struct {
		Resources []string `json:"resources"`
	}
	if err := yaml.Unmarshal([]byte(read(t, base+"/kustomization.yaml")), &kustomization); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, file := range tree(t) {
		if within(file, base) && path.Base(file) != "kustomization.yaml" {
			want = append(want, strings.TrimPrefix(file, base+"/"))
		}
	}
	got := slices.Sorted(slices.Values(kustomization.Resources))
	if !slices.Equal(got, want) {
		t.Errorf("resources of the kustomization: %v\nfiles: %v", got, want)
	}
}

func TestObjectsAreOurs(t *testing.T) {
	for file, list := range objects(t, base) {
		for _, object := range list {
			accessor, err := meta.Accessor(object)
			if err != nil {
				t.Fatal(err)
			}
			kind := object.GetObjectKind().GroupVersionKind().Kind
			if ns := accessor.GetNamespace(); ns != "" && ns != "onelb-system" && kind != "RoleBinding" {
				t.Errorf("%s: %s %s is in namespace %s: ours live in onelb-system", file, kind, accessor.GetName(), ns)
			}
			if kind != "CustomResourceDefinition" && accessor.GetLabels()["app.kubernetes.io/part-of"] != "onelb" {
				t.Errorf("%s: %s %s lacks the label app.kubernetes.io/part-of: onelb, by which all of it can be found and removed", file, kind, accessor.GetName())
			}
		}
	}
}

func TestCRDsAreTheAPIsTypes(t *testing.T) {
	known := v1alpha1Kinds(t)
	var got []string
	for _, crd := range all[*apiextensionsv1.CustomResourceDefinition](t) {
		got = append(got, crd.Spec.Names.Kind)
		if crd.Spec.Scope != apiextensionsv1.ClusterScoped {
			t.Errorf("%s is namespaced: an address belongs to the cluster", crd.Name)
		}
		for _, version := range crd.Spec.Versions {
			_, status := version.Schema.OpenAPIV3Schema.Properties["status"]
			if status && (version.Subresources == nil || version.Subresources.Status == nil) {
				t.Errorf("%s %s has a status and no status subresource, so the writers of spec and status could not be told apart", crd.Name, version.Name)
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, known) {
		t.Errorf("CRDs for %v, types for %v: run make generate", got, known)
	}
}

// v1alpha1Kinds lists the kinds of our API that are not lists.
func v1alpha1Kinds(t *testing.T) []string {
	t.Helper()
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	gv := schema.GroupVersion{Group: "onelb.io", Version: "v1alpha1"}
	ours := module + "/api/v1alpha1"
	var out []string
	for kind, typ := range s.KnownTypes(gv) {
		if typ.PkgPath() == ours && !strings.HasSuffix(kind, "List") {
			out = append(out, kind)
		}
	}
	slices.Sort(out)
	return out
}

var flag = regexp.MustCompile(`--[a-z][a-z0-9-]*`)

// flags returns the flags that the lines after the program's name give it.
func flags(text, from string) []string {
	_, text, _ = strings.Cut(text, from)
	return slices.Compact(slices.Sorted(slices.Values(flag.FindAllString(text, -1))))
}

func TestInitSystemsStartTheRouterAlike(t *testing.T) {
	unit := flags(read(t, "manifests/router/onelb-router.service"), "ExecStart=")
	script := read(t, "manifests/router/onelb-router.initd")
	_, args, _ := strings.Cut(script, "command_args=")
	args, _, _ = strings.Cut(args, "checkpath")
	initd := flags("x"+args, "x")
	if len(unit) == 0 || !slices.Equal(unit, initd) {
		t.Errorf("systemd gives %v, OpenRC %v", unit, initd)
	}
}
