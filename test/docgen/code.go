package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// productDirs hold the code that the reference is about.
var productDirs = []string{"cmd", "ipam", "loadbalancer", "provider"}

// eachFile parses the product's Go files in a fixed order.
func eachFile(root string, visit func(pkg string, file *ast.File)) error {
	for _, dir := range productDirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, filepath.Dir(name))
			if err != nil {
				return err
			}
			visit(filepath.ToSlash(rel), file)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reasons lists the constants called Reason…, whose values are the reasons of
// events and conditions, by package.
func reasons(root string) (string, error) {
	byPackage := map[string][]string{}
	var order []string
	err := eachFile(root, func(pkg string, file *ast.File) {
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				if r := reasonRow(spec.(*ast.ValueSpec)); r != "" {
					if byPackage[pkg] == nil {
						order = append(order, pkg)
					}
					byPackage[pkg] = append(byPackage[pkg], r)
				}
			}
		}
	})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, pkg := range order {
		slices.Sort(byPackage[pkg])
		fmt.Fprintf(&out, "\nPackage `%s`:\n\n%s", pkg, table(byPackage[pkg], "reason", "meaning"))
	}
	return out.String() + "\n", nil
}

// reasonRow is the table row of a reason constant, empty for other constants.
func reasonRow(spec *ast.ValueSpec) string {
	if len(spec.Names) != 1 || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
		return ""
	}
	value := literal(spec.Values[0])
	meaning := spec.Doc.Text()
	if meaning == "" {
		meaning = spec.Comment.Text()
	}
	meaning = strings.TrimPrefix(strings.TrimSpace(meaning), spec.Names[0].Name)
	return row(code(value), strings.TrimLeft(meaning, ": "))
}

// metrics lists every metric from the literals of its options.
func metrics(root string) (string, error) {
	byProgram := map[string][]string{}
	err := eachFile(root, func(pkg string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			if options, kind := metricOptions(call.Args[0]); options != nil {
				program := programOf(pkg)
				byProgram[program] = append(byProgram[program], metricRow(options, kind, labels(call)))
			}
			return true
		})
	})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, program := range slices.Sorted(maps.Keys(byProgram)) {
		slices.Sort(byProgram[program])
		fmt.Fprintf(&out, "\n%s:\n\n%s", program, table(byProgram[program], "metric", "type", "labels", "meaning"))
	}
	return out.String() + "\n", nil
}

// programOf says which program has a package's metrics.
func programOf(pkg string) string {
	switch {
	case strings.HasPrefix(pkg, "loadbalancer/announcer"), pkg == "cmd/onelb-node":
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

// literal is the value of a string literal, or of several joined by +; names of
// constants are looked up where they are declared in the same file.
func literal(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.BasicLit:
		value, err := strconv.Unquote(e.Value)
		if err != nil {
			return e.Value
		}
		return value
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	case *ast.Ident:
		if e.Obj != nil {
			if spec, ok := e.Obj.Decl.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
				return literal(spec.Values[0])
			}
		}
		return path.Base(e.Name)
	}
	return ""
}
