package main

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
)

// metrics lists every metric from the literals of its options.
func metrics(root string) (string, error) {
	byProgram := map[string][]string{}
	err := eachFile(root, func(pkg string, file *ast.File) {
		program := programOf(pkg)
		byProgram[program] = append(byProgram[program], metricRows(file)...)
	})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, program := range slices.Sorted(maps.Keys(byProgram)) {
		if len(byProgram[program]) == 0 {
			continue
		}
		slices.Sort(byProgram[program])
		fmt.Fprintf(&out, "\n%s:\n\n%s", program, table(byProgram[program], "metric", "type", "labels", "meaning"))
	}
	return out.String() + "\n", nil
}

// metricRows finds the metrics of a file: calls with literal options, and calls
// of a function of this file that fills such options from its parameters.
func metricRows(file *ast.File) []string {
	var rows []string
	makers := metricMakers(file)
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if fields, kind := metricOptions(call.Args[0]); fields != nil && literal(fields["Name"]) != "" {
			rows = append(rows, metricRow(fields, kind, labels(call)))
		}
		if name, ok := call.Fun.(*ast.Ident); ok && makers[name.Name] != nil {
			rows = append(rows, makers[name.Name](call.Args))
		}
		return true
	})
	return rows
}

// metricMakers finds `gauge := func(name, help string) … { … Opts{Name: name} }`.
func metricMakers(file *ast.File) map[string]func(args []ast.Expr) string {
	makers := map[string]func(args []ast.Expr) string{}
	ast.Inspect(file, func(n ast.Node) bool {
		assign, ok := n.(*ast.AssignStmt)
		if !ok || len(assign.Lhs) != 1 || len(assign.Rhs) != 1 {
			return true
		}
		name, isName := assign.Lhs[0].(*ast.Ident)
		function, isFunction := assign.Rhs[0].(*ast.FuncLit)
		if !isName || !isFunction {
			return true
		}
		ast.Inspect(function.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
				if fields, kind := metricOptions(call.Args[0]); fields != nil {
					makers[name.Name] = func(args []ast.Expr) string {
						return metricRow(filled(fields, function.Type.Params, args), kind, labels(call))
					}
				}
			}
			return true
		})
		return true
	})
	return makers
}

// filled replaces parameters by arguments.
func filled(fields map[string]ast.Expr, params *ast.FieldList, args []ast.Expr) map[string]ast.Expr {
	values := map[string]ast.Expr{}
	i := 0
	for _, param := range params.List {
		for _, name := range param.Names {
			if i < len(args) {
				values[name.Name] = args[i]
			}
			i++
		}
	}
	out := maps.Clone(fields)
	for field, value := range fields {
		if name, ok := value.(*ast.Ident); ok && values[name.Name] != nil {
			out[field] = values[name.Name]
		}
	}
	return out
}

// programOf says which program has a package's metrics.
func programOf(pkg string) string {
	switch {
	case strings.HasPrefix(pkg, "loadbalancer/announcer"), pkg == "loadbalancer/bgp", pkg == "cmd/onelb-node":
		return "`onelb-node`"
	case strings.HasPrefix(pkg, "loadbalancer/router/"), pkg == "cmd/onelb-router":
		return "`onelb-router`"
	}
	return "`opennebula-cloud-controller-manager`"
}

// metricOptions recognises prometheus.GaugeOpts{…}, &metrics.CounterOpts{…} and
// their like.
func metricOptions(arg ast.Expr) (fields map[string]ast.Expr, kind string) {
	if pointer, ok := arg.(*ast.UnaryExpr); ok {
		arg = pointer.X
	}
	composite, ok := arg.(*ast.CompositeLit)
	if !ok {
		return nil, ""
	}
	selector, ok := composite.Type.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(selector.Sel.Name, "Opts") {
		return nil, ""
	}
	fields = map[string]ast.Expr{}
	for _, element := range composite.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok {
				fields[key.Name] = pair.Value
			}
		}
	}
	if fields["Name"] == nil || fields["Help"] == nil {
		return nil, ""
	}
	return fields, strings.ToLower(strings.TrimSuffix(selector.Sel.Name, "Opts"))
}

func metricRow(fields map[string]ast.Expr, kind, labels string) string {
	var parts []string
	for _, field := range []string{"Namespace", "Subsystem", "Name"} {
		if value := literal(fields[field]); value != "" {
			parts = append(parts, value)
		}
	}
	return row(code(strings.Join(parts, "_")), kind, labels, literal(fields["Help"]))
}

// labels finds the []string{…} among the arguments.
func labels(call *ast.CallExpr) string {
	var out []string
	for _, arg := range call.Args[1:] {
		if composite, ok := arg.(*ast.CompositeLit); ok {
			for _, element := range composite.Elts {
				out = append(out, code(literal(element)))
			}
		}
	}
	return strings.Join(out, ", ")
}
