// Command docgen writes the generated parts of the pages in docs/reference:
//
//	go run ./test/docgen          rewrites them
//	go run ./test/docgen -check   fails if that would change anything
//
// A page says itself where a generated part goes, between the lines
// "<!-- generated: NAME -->" and "<!-- end -->"; what stands outside is written by
// hand and kept. Sources are the annotation package, comments and literals in
// the code (event reasons, metrics), the RBAC manifests and the CRDs. The output
// depends on nothing but them.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

func main() {
	check := flag.Bool("check", false, "change nothing, fail if something would change")
	root := flag.String("root", ".", "the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// errStale marks pages that do not show what the code says.
var errStale = errors.New("out of date, run: make generate")

// generators make the generated parts, by name.
var generators = map[string]func(root string) (string, error){
	"annotations": annotations,
	"reasons":     reasons,
	"metrics":     metrics,
	"rbac":        rbac,
	"flags":       flags,
	"crds":        crds,
	"vmstates":    vmstates,
	"settings":    settings,
}

// run brings all pages up to date, or with check says which are not.
func run(root string, check bool) error {
	pages, err := filepath.Glob(filepath.Join(root, "docs/reference/*.md"))
	if err != nil {
		return err
	}
	var failed error
	for _, page := range pages {
		if err := update(root, page, check); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", page, err))
		}
	}
	return failed
}

func update(root, page string, check bool) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := fill(old, func(name string) (string, error) {
		generate, ok := generators[name]
		if !ok {
			return "", fmt.Errorf("no generator %q", name)
		}
		return generate(root)
	})
	switch {
	case err != nil:
		return err
	case bytes.Equal(text, old):
		return nil
	case check:
		return errStale
	}
	return os.WriteFile(page, text, 0o644)
}

var part = regexp.MustCompile(`(?s)<!-- generated: ([a-z]+) -->\n.*?<!-- end -->`)

// fill replaces the generated parts of a page.
func fill(page []byte, generate func(name string) (string, error)) ([]byte, error) {
	var failed error
	out := part.ReplaceAllFunc(page, func(match []byte) []byte {
		name := string(part.FindSubmatch(match)[1])
		text, err := generate(name)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		}
		return []byte("<!-- generated: " + name + " -->\n" + text + "<!-- end -->")
	})
	return out, failed
}
