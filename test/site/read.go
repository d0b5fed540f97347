package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// page is one Markdown file.
type page struct {
	source string // slash-separated, from the repository's root
	target string // the same with .html; README.md is index.html
	title  string
	text   []byte
	// anchors are the headings' names; links are as they stand in the text.
	anchors map[string]bool
	links   []string
	body    []byte
}

// site is all pages, by source.
type site struct {
	root  string
	pages map[string]*page
	order []string // sources, as the navigation lists them
}

// sections are the parts of the navigation, in order; what is in none comes last.
var sections = []struct{ title, dir string }{
	{"Tutorials", "docs/tutorials"}, {"How to", "docs/how-to"}, {"Concepts", "docs/concepts"}, {"Reference", "docs/reference"},
}

// skipped hold no documentation: what is made, and the tests' own.
var skipped = []string{".git", "bin", "build", "test"}

// read reads and renders every Markdown file of a repository.
func read(root string) (*site, error) {
	s := &site{root: root, pages: map[string]*page{}}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skipped, rel) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".md") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		p := &page{source: filepath.ToSlash(rel), text: text}
		p.target = targetOf(p.source)
		s.pages[p.source] = p
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range s.pages {
		if err := s.render(p); err != nil {
			return nil, fmt.Errorf("%s: %w", p.source, err)
		}
		s.order = append(s.order, p.source)
	}
	slices.SortFunc(s.order, func(a, b string) int { return strings.Compare(s.pages[a].title, s.pages[b].title) })
	return s, nil
}

func targetOf(source string) string {
	if path.Base(source) == "README.md" {
		return path.Join(path.Dir(source), "index.html")
	}
	return strings.TrimSuffix(source, ".md") + ".html"
}

// resolve splits a link of a page into the file that it means, from the
// repository's root, and a heading. Inside is false for other sites' addresses.
func (p *page) resolve(link string) (file, anchor string, inside bool) {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return "", "", false
	}
	name, anchor, _ := strings.Cut(link, "#")
	if name == "" {
		return p.source, anchor, true
	}
	return path.Join(path.Dir(p.source), name), anchor, true
}

// rewritten is where a link leads on the site.
func (p *page) rewritten(link string, s *site) string {
	file, anchor, inside := p.resolve(link)
	if !inside || strings.HasPrefix(link, "#") {
		return link
	}
	target := file
	if s.pages[file] != nil {
		target = targetOf(file)
	} else if info, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(file))); err == nil && info.IsDir() {
		target = path.Join(file, "index.html")
		if s.pages[path.Join(file, "README.md")] == nil {
			target = path.Join(file, listName)
		}
	}
	rel, err := filepath.Rel(filepath.FromSlash(path.Dir(p.target)), filepath.FromSlash(target))
	if err != nil {
		return link
	}
	if anchor != "" {
		anchor = "#" + anchor
	}
	return filepath.ToSlash(rel) + anchor
}
