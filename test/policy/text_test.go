package policy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// registries are hosts of package and image registries, in parts so that this
// file keeps its own rule. The tree names none: which mirror to use is the
// builder's setting, and images go to the operator's registry.
var registries = []string{
	host("proxy", "golang", "org"), host("sum", "golang", "org"), host("goproxy", "io"), host("goproxy", "cn"),
	host("deb", "debian", "org"), host("security", "debian", "org"), host("snapshot", "debian", "org"),
	host("docker", "io"), host("ghcr", "io"), host("quay", "io"), host("gcr", "io"), host("registry", "k8s", "io"), host("hub", "docker", "com"),
	host("pypi", "org"), host("pythonhosted", "org"), host("npmjs", "org"), host("npmjs", "com"), host("crates", "io"), host("rubygems", "org"),
}

func host(labels ...string) string { return strings.Join(labels, ".") }

// checksums are made by tools and name modules only.
func isChecksums(p string) bool { return path.Base(p) == "go.sum" }

// badText returns the registries that a text names.
func badText(name, text string) []string {
	if isChecksums(name) || !utf8.ValidString(text) {
		return nil
	}
	var out []string
	lower := strings.ToLower(text)
	for _, registry := range registries {
		if strings.Contains(lower, registry) {
			out = append(out, fmt.Sprintf("%s names the registry %s: which one to use is the setting of whoever builds or installs", name, registry))
		}
	}
	return out
}

func TestNoRegistryNames(t *testing.T) {
	for _, file := range tree(t) {
		report(t, badText(file, read(t, file)))
	}
}

func TestRegistryRuleBites(t *testing.T) {
	if got := badText("README.md", "pull "+host("ghcr", "io")+"/x"); len(got) != 1 {
		t.Errorf("violations: %v, want one", got)
	}
}

var (
	fence      = regexp.MustCompile("(?ms)^```.*?^```$")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	link       = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	external   = regexp.MustCompile(`^([a-z]+:|#)`)
)

// badLinks returns the relative links of a Markdown file that lead nowhere.
func badLinks(file, text string, files []string) []string {
	text = inlineCode.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	var out []string
	for _, match := range link.FindAllStringSubmatch(text, -1) {
		if external.MatchString(match[1]) {
			continue
		}
		target := path.Join(path.Dir(file), strings.SplitN(match[1], "#", 2)[0])
		isTarget := func(f string) bool { return within(f, target) }
		if !slices.ContainsFunc(files, isTarget) {
			out = append(out, fmt.Sprintf("%s links to %s, which does not exist", file, match[1]))
		}
	}
	return out
}

func TestLinksInDocumentation(t *testing.T) {
	files := tree(t)
	for _, file := range files {
		if strings.HasSuffix(file, ".md") {
			report(t, badLinks(file, read(t, file), files))
		}
	}
}

func TestLinkRuleBites(t *testing.T) {
	files := []string{"README.md", "docs/a.md", "manifests/base/x.yaml"}
	text := "[ok](a.md#part) [dir](../manifests/base) [web](https://example.org) [bad](b.md) `[code](c.md)`\n```\n[fenced](d.md)\n```\n"
	got := badLinks("docs/a.md", text, files)
	if len(got) != 1 || !strings.Contains(got[0], "b.md") {
		t.Errorf("violations: %v, want b.md alone", got)
	}
}

func TestEveryDocumentIsReachable(t *testing.T) {
	files := tree(t)
	seen := map[string]bool{"README.md": true}
	queue := []string{"README.md"}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		for _, match := range link.FindAllStringSubmatch(read(t, file), -1) {
			target := path.Join(path.Dir(file), strings.SplitN(match[1], "#", 2)[0])
			if strings.HasSuffix(target, ".md") && !seen[target] && slices.Contains(files, target) {
				seen[target] = true
				queue = append(queue, target)
			}
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".md") && !seen[file] && within(file, "docs") {
			t.Errorf("%s: no chain of links leads there from README.md, so nobody finds it", file)
		}
	}
}
