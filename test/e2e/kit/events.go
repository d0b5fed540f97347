package kit

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Events are our own about an object, of all namespaces, as "reason: message".
func (w *World) Events(ctx context.Context, kind, name string) ([]string, error) {
	list, err := w.Client().CoreV1().Events("").List(ctx, metav1.ListOptions{
		FieldSelector: fields.SelectorFromSet(fields.Set{"involvedObject.kind": kind, "involvedObject.name": name}).String(),
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range list.Items {
		if e.Source.Component != "onelb" {
			continue
		}
		for range max(e.Count, 1) {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out, nil
}

// Said waits for an event of the reason with all the words.
func (w *World) Said(kind, name, reason string, words ...string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("event %s of %s %s with %q", reason, kind, name, words), func(ctx context.Context) error {
		all, err := w.Events(ctx, kind, name)
		if err != nil {
			return err
		}
		for _, text := range all {
			if strings.HasPrefix(text, reason+": ") && hasAll(text, words) {
				return nil
			}
		}
		return fmt.Errorf("have %q", all)
	})
}

func hasAll(text string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}

// SaidOnce fails the test unless there is exactly one event of the reason.
func (w *World) SaidOnce(kind, name, reason string) {
	w.T.Helper()
	all, err := w.Events(w.Context(), kind, name)
	w.Must(err)
	n := 0
	for _, text := range all {
		if strings.HasPrefix(text, reason+": ") {
			n++
		}
	}
	if n != 1 {
		w.T.Errorf("%s %s has %d events %s, want one: %q", kind, name, n, reason, all)
	}
}

// Waits is a Service that cannot be served now: one event says why, it shows
// nothing.
func (w *World) Waits(name, reason string, words ...string) {
	w.T.Helper()
	w.Said("Service", name, reason, words...)
	w.Pending(name)
}
