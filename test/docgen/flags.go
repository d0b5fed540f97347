package main

import (
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// flagged are the packages with the flags of our programs. The library's own flags
// of the cloud-controller-manager are in its --help.
var flagged = []struct{ pkg, program string }{
	{"provider", "`opennebula-cloud-controller-manager`, beside the library's own"},
	{"loadbalancer/announcer/node", "`onelb-node`"},
	{"cmd/onelb-router", "`onelb-router`"},
}

// flags lists the flags of each program from the calls that declare them.
func flags(root string) (string, error) {
	rows, defaults := map[string][]string{}, map[string]map[string]ast.Expr{}
	var calls []flagCall
	constants := map[string]string{} // as package.Name
	err := eachFile(root, func(pkg string, file *ast.File) {
		collectConstants(file, constants)
		if !slices.ContainsFunc(flagged, func(f struct{ pkg, program string }) bool { return f.pkg == pkg }) {
			return
		}
		if defaults[pkg] == nil {
			defaults[pkg] = map[string]ast.Expr{}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if c, ok := flagOf(n); ok {
					c.pkg = pkg
					calls = append(calls, c)
				}
			case *ast.CompositeLit:
				collectDefaults(n, defaults[pkg])
			case *ast.FuncDecl:
				if n.Name.Name == "AddFlags" {
					collectAssigned(n, defaults[pkg])
				}
			}
			return true
		})
	})
	if err != nil {
		return "", err
	}
	for _, c := range calls {
		rows[c.pkg] = append(rows[c.pkg], row(code("--"+c.name), code(c.value(defaults[c.pkg], constants)), text(c.usage, constants)))
	}
	var out strings.Builder
	for _, f := range flagged {
		slices.Sort(rows[f.pkg])
		fmt.Fprintf(&out, "\n%s:\n\n%s", f.program, table(rows[f.pkg], "flag", "default", "meaning"))
	}
	return out.String() + "\n", nil
}

// flagCall declares a flag.
type flagCall struct {
	pkg, name string
	usage     ast.Expr
	initial   ast.Expr // nil: the zero value, or one that Set made
}

var declares = regexp.MustCompile(`^(?:(?:String|Int|Bool|Duration|StringSlice|IPSlice)Var|Var|Bool|String|Int|Duration)$`)

// flagOf recognises fs.StringVar(&x, "name", value, "usage"), fs.Var(&x, "name",
// "usage") and fs.Bool("name", value, "usage").
func flagOf(call *ast.CallExpr) (flagCall, bool) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !declares.MatchString(selector.Sel.Name) {
		return flagCall{}, false
	}
	args := call.Args
	if strings.HasSuffix(selector.Sel.Name, "Var") && len(args) > 0 {
		args = args[1:]
	}
	if len(args) < 2 || len(args) > 3 {
		return flagCall{}, false
	}
	c := flagCall{name: literal(args[0]), usage: args[len(args)-1]}
	if len(args) == 3 {
		c.initial = args[1]
	} else if pointer, ok := call.Args[0].(*ast.UnaryExpr); ok {
		c.initial = pointer.X // fs.Var: what the field has when the flag is declared
	}
	return c, c.name != "" && literal(c.usage) != ""
}

// collectConstants notes the texts among a file's constants.
func collectConstants(file *ast.File, into map[string]string) {
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && len(v.Names) == 1 && len(v.Values) == 1 {
				into[file.Name.Name+"."+v.Names[0].Name] = literal(v.Values[0])
			}
		}
	}
}

// text is a literal in which constants of other packages may stand.
func text(e ast.Expr, constants map[string]string) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return text(e.X, constants) + text(e.Y, constants)
	case *ast.SelectorExpr:
		if pkg, ok := e.X.(*ast.Ident); ok {
			return constants[pkg.Name+"."+e.Sel.Name]
		}
	}
	return literal(e)
}

// collectDefaults notes the fields of Options{…}.
func collectDefaults(l *ast.CompositeLit, into map[string]ast.Expr) {
	if name, ok := l.Type.(*ast.Ident); !ok || name.Name != "Options" {
		return
	}
	for _, e := range l.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok {
				into[key.Name] = pair.Value
			}
		}
	}
}

// collectAssigned notes the fields that a function sets, x.Field = value.
func collectAssigned(f *ast.FuncDecl, into map[string]ast.Expr) {
	for _, s := range f.Body.List {
		a, ok := s.(*ast.AssignStmt)
		if !ok || len(a.Lhs) != 1 || len(a.Rhs) != 1 {
			continue
		}
		if field, ok := a.Lhs[0].(*ast.SelectorExpr); ok {
			into[field.Sel.Name] = a.Rhs[0]
		}
	}
}

var seconds = regexp.MustCompile(`^(\d+) \* time\.Second$`)

// value is the default as one would type it; empty for what is empty.
func (c flagCall) value(defaults map[string]ast.Expr, constants map[string]string) string {
	e := c.initial
	if field, ok := e.(*ast.SelectorExpr); ok {
		e = defaults[field.Sel.Name]
	}
	if e == nil {
		return ""
	}
	if name, ok := e.(*ast.Ident); ok && constants[path.Base(c.pkg)+"."+name.Name] != "" {
		return constants[path.Base(c.pkg)+"."+name.Name]
	}
	var b strings.Builder
	if err := printer.Fprint(&b, token.NewFileSet(), e); err != nil {
		return ""
	}
	if s := b.String(); seconds.MatchString(s) || s == "true" || s == "false" {
		return seconds.ReplaceAllString(s, "${1}s")
	}
	return literal(e)
}
