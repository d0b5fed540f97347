package migrate

import (
	"cmp"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func matchesAny(selectors []metav1.LabelSelector, set labels.Set) bool {
	return slices.ContainsFunc(selectors, func(s metav1.LabelSelector) bool {
		sel, err := metav1.LabelSelectorAsSelector(&s)
		return err == nil && sel.Matches(set)
	})
}

// either makes one selector of several of which one has to match. That can be
// said if there is one, or if all ask for values of one label.
func either(selectors []metav1.LabelSelector) (*metav1.LabelSelector, bool) {
	switch len(selectors) {
	case 0:
		return nil, true
	case 1:
		return selectors[0].DeepCopy(), true
	}
	key := ""
	values := map[string]bool{}
	for _, s := range selectors {
		k, vs := oneLabel(s)
		if k == "" || key != "" && k != key {
			return nil, false
		}
		key = cmp.Or(key, k)
		for _, v := range vs {
			values[v] = true
		}
	}
	return in(key, slices.Sorted(maps.Keys(values))), true
}

// oneLabel is the label, and the values of it, that a selector asks for; empty if
// it asks for something else.
func oneLabel(s metav1.LabelSelector) (key string, values []string) {
	switch {
	case len(s.MatchLabels) == 1 && len(s.MatchExpressions) == 0:
		for k, v := range s.MatchLabels {
			return k, []string{v}
		}
	case len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 && s.MatchExpressions[0].Operator == metav1.LabelSelectorOpIn:
		return s.MatchExpressions[0].Key, s.MatchExpressions[0].Values
	}
	return "", nil
}

func in(key string, values []string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}}}
}
