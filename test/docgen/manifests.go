package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// rbac lists what the roles of the manifests allow.
func rbac(root string) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, "manifests/base/rbac/*.yaml"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for document := range strings.SplitSeq(string(content), "\n---\n") {
			var role rbacv1.Role // a ClusterRole has the same fields
			if err := yaml.Unmarshal([]byte(document), &role); err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
			if len(role.Rules) == 0 {
				continue
			}
			where := "the whole cluster"
			if role.Namespace != "" {
				where = "namespace `" + role.Namespace + "`"
			}
			fmt.Fprintf(&out, "\n`%s` (%s):\n\n%s", role.Name, where, table(ruleRows(role.Rules), "group", "resource", "names", "verbs"))
		}
	}
	return out.String() + "\n", nil
}

func ruleRows(rules []rbacv1.PolicyRule) []string {
	var rows []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				rows = append(rows, row(group, code(resource), strings.Join(rule.ResourceNames, ", "), strings.Join(rule.Verbs, ", ")))
			}
		}
	}
	return rows
}

// crds lists the fields of our objects.
func crds(root string) (string, error) {
	files, err := filepath.Glob(filepath.Join(root, "manifests/base/crds/*.yaml"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(content, &crd); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		for _, version := range crd.Spec.Versions {
			schema := version.Schema.OpenAPIV3Schema
			fmt.Fprintf(&out, "\n## %s (%s/%s)\n\n%s\n\n", crd.Spec.Names.Kind, crd.Spec.Group, version.Name, unwrap(schema.Description))
			if short := crd.Spec.Names.ShortNames; len(short) > 0 {
				fmt.Fprintf(&out, "Short names: %s.\n\n", strings.Join(short, ", "))
			}
			for _, top := range []string{"spec", "status"} {
				if rows := fieldRows(top, schema.Properties[top]); len(rows) > 0 {
					out.WriteString(table(rows, "field", "type", "meaning") + "\n")
				}
			}
		}
	}
	return out.String(), nil
}

// fieldRows lists the fields below one, depth first, sorted by name.
func fieldRows(path string, schema apiextensionsv1.JSONSchemaProps) []string {
	var rows []string
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		field := schema.Properties[name]
		child := path + "." + name
		meaning := field.Description
		if slices.Contains(schema.Required, name) {
			meaning = "Required. " + meaning
		}
		for _, rule := range field.XValidations {
			meaning += " Rule: " + rule.Message + "."
		}
		rows = append(rows, row(code(child), kindOf(field), meaning))
		switch {
		case standard[name]:
		case field.Type == "array" && field.Items != nil && field.Items.Schema != nil:
			rows = append(rows, fieldRows(child+"[]", *field.Items.Schema)...)
		default:
			rows = append(rows, fieldRows(child, field)...)
		}
	}
	return rows
}

// standard are fields whose insides are Kubernetes' own.
var standard = map[string]bool{"conditions": true}

// kindOf is a field's type with its limits.
func kindOf(field apiextensionsv1.JSONSchemaProps) string {
	kind := field.Type
	if field.Type == "array" && field.Items != nil && field.Items.Schema != nil {
		kind = "list of " + field.Items.Schema.Type
	}
	if len(field.Enum) > 0 {
		var values []string
		for _, value := range field.Enum {
			values = append(values, strings.Trim(string(value.Raw), `"`))
		}
		kind = strings.Join(values, ", ")
	}
	if field.Default != nil {
		kind += ", default " + strings.Trim(string(field.Default.Raw), `"`)
	}
	return kind
}

func unwrap(text string) string { return strings.Join(strings.Fields(text), " ") }
