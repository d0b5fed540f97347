package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestOf(t *testing.T) {
	kube := fake.NewSimpleClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "of-the-namespace"}})
	if got, err := Of(t.Context(), kube, ""); err != nil || got != "of-the-namespace" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Of(t.Context(), fake.NewSimpleClientset(), ""); err == nil {
		t.Error("no namespace, no identity")
	}
	for content, want := range map[string]string{
		"3f1c-a.b_C\n": "3f1c-a.b_C", "": "", "\n": "", "two words": "", "-x": "", "a\nb": "", strings.Repeat("a", 129): "", `a"]`: "",
	} {
		file := filepath.Join(t.TempDir(), "identity")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Of(t.Context(), nil, file); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
	if _, err := Of(t.Context(), kube, filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a file that is absent is not passed over: the UID would be another identity")
	}
}
