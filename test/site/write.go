package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// listName is the list of a directory that has no README.md.
const listName = "files.html"

var (
	//go:embed site.css
	style []byte
	//go:embed page.html
	frameText string
	frame     = template.Must(template.New("page").Parse(frameText))
)

// entry is a link of the navigation.
type entry struct {
	Title, Link string
	Here        bool
}

type section struct {
	Title   string
	Entries []entry
}

// write writes pages, and what they link to.
func (s *site) write(out string) error {
	for _, source := range s.order {
		p := s.pages[source]
		if err := s.frame(out, p.target, p.title, template.HTML(p.body)); err != nil { //nolint:gosec // our own text
			return err
		}
		for _, link := range p.links {
			if file, _, inside := p.resolve(link); inside && s.pages[file] == nil {
				if err := s.copy(out, file); err != nil {
					return fmt.Errorf("%s: %w", source, err)
				}
			}
		}
	}
	return put(out, "site.css", style)
}

// frame writes a page with its navigation.
func (s *site) frame(out, target, title string, body template.HTML) error {
	up := strings.Repeat("../", strings.Count(target, "/"))
	var b strings.Builder
	err := frame.Execute(&b, map[string]any{"Title": title, "Up": up, "Body": body, "Sections": s.navigation(target, up)})
	if err != nil {
		return err
	}
	return put(out, target, []byte(b.String()))
}

func (s *site) navigation(target, up string) []section {
	all := make([]section, len(sections)+1)
	for i, part := range sections {
		all[i].Title = part.title
	}
	all[len(sections)].Title = "Project"
	for _, source := range s.order {
		i := slices.IndexFunc(sections, func(part struct{ title, dir string }) bool { return strings.HasPrefix(source, part.dir+"/") })
		if i < 0 {
			i = len(sections)
		}
		p := s.pages[source]
		all[i].Entries = append(all[i].Entries, entry{Title: p.title, Link: up + p.target, Here: p.target == target})
	}
	return all
}

// copy brings a file, or a list of a directory, to the site. One that is not there
// is a problem of check's.
func (s *site) copy(out, file string) error {
	from := filepath.Join(s.root, filepath.FromSlash(file))
	info, err := os.Stat(from)
	if err != nil {
		return nil
	}
	if !info.IsDir() {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return put(out, file, text)
	}
	var body strings.Builder
	body.WriteString("<h1>" + template.HTMLEscapeString(file) + "</h1>\n<ul>\n")
	err = filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if err := s.copy(out, path.Join(file, rel)); err != nil {
			return err
		}
		_, err = fmt.Fprintf(&body, "<li><a href=\"%s\">%[1]s</a></li>\n", template.HTMLEscapeString(rel))
		return err
	})
	if err != nil {
		return err
	}
	body.WriteString("</ul>\n")
	return s.frame(out, path.Join(file, listName), file, template.HTML(body.String())) //nolint:gosec // escaped above
}

func put(out, name string, text []byte) error {
	to := filepath.Join(out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644) //nolint:gosec // for a web server
}

// check lists the links that lead nowhere.
func (s *site) check() []error {
	var out []error
	for _, source := range s.order {
		p := s.pages[source]
		for _, link := range p.links {
			file, anchor, inside := p.resolve(link)
			if !inside {
				continue
			}
			if to := s.pages[file]; to != nil {
				if anchor != "" && !to.anchors[anchor] {
					out = append(out, fmt.Errorf("%s links to %s: %s has no such heading", source, link, file))
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(s.root, filepath.FromSlash(file))); err != nil {
				out = append(out, fmt.Errorf("%s links to %s, which is not there", source, link))
			}
		}
	}
	slices.SortFunc(out, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return out
}
