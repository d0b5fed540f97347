package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
)

// chromium is the browser with what it needs to run from where it was unpacked.
type chromium struct {
	path string
	env  []string
	dir  string
}

func newChromium(t *testing.T) *chromium {
	t.Helper()
	cache, err := kubebin.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	p, err := debian.Find(t.Context(), cache, "chromium", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	c := &chromium{path: p.Path, dir: t.TempDir(), env: append(p.Env(), "HOME="+t.TempDir())}
	if len(p.LibDirs) == 0 {
		return c // it is installed
	}
	// The program in bin is a script for an installed browser.
	root := filepath.Dir(filepath.Dir(filepath.Dir(p.Path)))
	c.path = filepath.Join(root, "usr/lib/chromium/chromium")
	fonts := filepath.Join(c.dir, "fonts.conf")
	text := fmt.Sprintf(`<?xml version="1.0"?>
<fontconfig>
<dir>%s/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>%s</cachedir>
<alias><family>ui-monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<match><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>
</fontconfig>
`, root, filepath.Join(c.dir, "fonts"))
	if err := os.WriteFile(fonts, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	libs := append([]string{}, p.LibDirs...)
	for _, dir := range p.LibDirs { // a library of a library, where its own path would lead
		libs = append(libs, filepath.Join(dir, "pulseaudio"))
	}
	c.env = append(c.env, "FONTCONFIG_FILE="+fonts, "LD_LIBRARY_PATH="+strings.Join(libs, ":"))
	return c
}

// patience is for a browser that starts on a busy machine.
const patience = 3 * time.Minute

// run opens a page, lets it work for some seconds of its own time, and returns
// what the browser prints, and what its console said.
func (c *chromium) run(t *testing.T, url string, args ...string) (out, console string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	profile, err := os.MkdirTemp(c.dir, "profile-")
	if err != nil {
		t.Fatal(err)
	}
	all := append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking",
		"--hide-scrollbars", "--enable-logging=stderr", "--log-level=0", "--user-data-dir=" + profile, "--virtual-time-budget=8000",
	}, args...)
	cmd := exec.CommandContext(ctx, c.path, append(all, url)...)
	cmd.Env = c.env
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", url, err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, "CONSOLE") {
			console += line
		}
	}
	return stdout.String(), console
}
