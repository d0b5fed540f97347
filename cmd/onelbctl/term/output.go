package term

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Output is the form of what is written.
type Output string

// The forms.
const (
	Table Output = ""
	Wide  Output = "wide"
	JSON  Output = "json"
	YAML  Output = "yaml"
)

// Check refuses a form that is not one of those allowed.
func (o Output) Check(allowed ...Output) error {
	if slices.Contains(allowed, o) {
		return nil
	}
	var names []string
	for _, a := range allowed {
		if a != Table {
			names = append(names, string(a))
		}
	}
	return fmt.Errorf("-o %s: there is %s", o, strings.Join(names, ", "))
}

// Encode writes a value as JSON or YAML, and reports whether the form is one of these.
func (o Output) Encode(w io.Writer, v any) (bool, error) {
	var text []byte
	var err error
	switch o {
	case JSON:
		text, err = json.MarshalIndent(v, "", "  ")
		text = append(text, '\n')
	case YAML:
		text, err = yaml.Marshal(v)
	case Table, Wide:
		return false, nil
	}
	if err == nil {
		_, err = w.Write(text)
	}
	return true, err
}
