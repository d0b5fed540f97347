package e2e_test

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// events are the Events about an object. Those of cluster-scoped objects are in
// the default namespace too.
func (w *world) events(ctx context.Context, kind, name string) ([]corev1.Event, error) {
	list, err := w.Client().CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.SelectorFromSet(fields.Set{"involvedObject.kind": kind, "involvedObject.name": name}).String(),
	})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// warnings are our own Warning events about an object, as "reason: message", each
// as often as it was sent.
func (w *world) warnings(ctx context.Context, kind, name string) ([]string, error) {
	all, err := w.events(ctx, kind, name)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range all {
		if e.Type != corev1.EventTypeWarning || e.Source.Component != "onelb" {
			continue
		}
		for range max(e.Count, 1) {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out, nil
}

// warned waits for the one warning about an object, with the given reason and words.
func (w *world) warned(kind, name, reason string, words ...string) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("event %s of %s %s", reason, kind, name), func(ctx context.Context) error {
		all, err := w.warnings(ctx, kind, name)
		if err != nil {
			return err
		}
		for _, text := range all {
			if !strings.HasPrefix(text, reason+": ") {
				continue
			}
			w.mentions(text, words...)
			return nil
		}
		return fmt.Errorf("have %q", all)
	})
}

// warnedOnce fails the test unless there is exactly one warning about an object.
func (w *world) warnedOnce(kind, name string) {
	w.T.Helper()
	all, err := w.warnings(w.Context(), kind, name)
	w.Must(err)
	if len(all) != 1 {
		w.T.Errorf("%s %s has %d warnings, want one: %q", kind, name, len(all), all)
	}
}
