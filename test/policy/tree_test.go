package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module is the path of the root module.
const module = "github.com/onelb/onelb"

// root is the repository; tests run in their package's directory.
const root = "../.."

// skippedDirs hold what is not part of the repository.
var skippedDirs = []string{".git", "bin", "build"}

// tree returns the repository's files, sorted, as slash-separated paths.
func tree(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(skippedDirs, rel) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no files below %s", root)
	}
	return files
}

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// source is a parsed Go file.
type source struct {
	path string // slash-separated, from the repository's root
	text string
	ast  *ast.File
}

// parse parses one Go file.
func parse(t *testing.T, path, text string) source {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return source{path: path, text: text, ast: file}
}

// sources parses all Go files of the repository, other modules' included.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	for _, path := range tree(t) {
		if strings.HasSuffix(path, ".go") {
			out = append(out, parse(t, path, read(t, path)))
		}
	}
	return out
}

func (s source) dir() string {
	if i := strings.LastIndex(s.path, "/"); i >= 0 {
		return s.path[:i]
	}
	return "."
}

// isTest says whether the file is test code: a test file, or anything in test/.
func (s source) isTest() bool {
	return strings.HasSuffix(s.path, "_test.go") || strings.HasPrefix(s.path, "test/")
}

var generatedLine = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func (s source) isGenerated() bool { return generatedLine.MatchString(s.text) }

// imports are the import paths of the file.
func (s source) imports() []string {
	var out []string
	for _, spec := range s.ast.Imports {
		out = append(out, strings.Trim(spec.Path.Value, `"`))
	}
	return out
}

// within says whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// report fails the test with every violation.
func report(t *testing.T, violations []string) {
	t.Helper()
	for _, v := range violations {
		t.Error(v)
	}
}
