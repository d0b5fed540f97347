package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
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
	}
	return ""
}
