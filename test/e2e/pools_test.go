package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// poolYAML is a small pool of one test; spec is in flow style, with exposure and
// network.
func poolYAML(name, spec string) string {
	return fmt.Sprintf("apiVersion: onelb.io/v1alpha1\nkind: AddressPool\nmetadata: {name: %s}\nspec: {autoAssign: false, %s}\n", name, spec)
}

// applyText runs kubectl apply and returns what it says.
func (w *world) applyText(text string) (string, error) {
	file := filepath.Join(w.T.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	return w.Kubectl(w.Context(), "apply", "-f", file)
}

// mentions fails the test unless the text has all of the words.
func (w *world) mentions(text string, words ...string) {
	w.T.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.T.Errorf("%q does not mention %q", text, word)
		}
	}
}
