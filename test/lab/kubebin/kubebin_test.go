package kubebin

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// module writes a module with one command.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var small = map[string]string{
	"go.mod":           "module small\n\ngo 1.26\n",
	"go.sum":           "",
	"cmd/kube/main.go": "package main\n\nfunc main() { println(\"ok\") }\n",
}

// TestKey holds that the key follows the content that a build depends on.
func TestKey(t *testing.T) {
	key := func(files map[string]string) string {
		t.Helper()
		k, err := contentKey(t.Context(), module(t, files))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(small)
	if again := key(small); again != first {
		t.Errorf("equal content has the keys %s and %s", first, again)
	}
	for name := range small {
		changed := map[string]string{}
		maps.Copy(changed, small)
		changed[name] += "\n// changed\n"
		if key(changed) == first {
			t.Errorf("a change of %s does not change the key", name)
		}
	}
}

func TestBuild(t *testing.T) {
	dir := module(t, small)
	out := filepath.Join(t.TempDir(), "key")
	var progress bytes.Buffer
	if err := build(t.Context(), dir, out, &progress); err != nil {
		t.Fatal(err)
	}
	for _, name := range kubePrograms {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s: %v, %v; want a program", name, info, err)
		}
	}
	if !strings.Contains(progress.String(), "12 minutes") {
		t.Errorf("progress %q does not say how long it takes", &progress)
	}
}

// TestBuildFails holds that the compiler's words reach the user and that nothing
// is published.
func TestBuildFails(t *testing.T) {
	broken := map[string]string{"go.mod": small["go.mod"], "cmd/kube/main.go": "package main\n\nfunc main() { undefinedName() }\n"}
	out := filepath.Join(t.TempDir(), "key")
	err := build(t.Context(), module(t, broken), out, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Errorf("error %v does not name the cause", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(out)); len(entries) != 0 {
		t.Errorf("a failed build leaves %v", entries)
	}
}

func TestPrune(t *testing.T) {
	builds := t.TempDir()
	now := time.Now()
	for i, name := range []string{"current", "recent", "old", "older", "tmp-123"} {
		path := filepath.Join(builds, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		at := now.Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(builds, "current"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(builds)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"current", "recent"}; !slices.Equal(left, want) {
		t.Errorf("left %v; want %v", left, want)
	}
}

func TestReadBuild(t *testing.T) {
	var n atomic.Int64
	out := "internal/abi\nk8s.io/api/core/v1\n# k8s.io/x\nx/y.go:1:2: undefined: z\n"
	messages := readBuild(strings.NewReader(out), &n)
	if n.Load() != 2 || messages != "# k8s.io/x\nx/y.go:1:2: undefined: z" {
		t.Errorf("%d packages, messages %q", n.Load(), messages)
	}
}

// TestLock holds that the second waits for the first, and gives up with its context.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "lock")
	unlock, err := lock(t.Context(), path, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var progress bytes.Buffer
	if _, err := lock(ctx, path, &progress); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v", err)
	}
	if !strings.Contains(progress.String(), "waiting") {
		t.Errorf("progress %q does not say that it waits", &progress)
	}
	unlock()
	if _, err := lock(t.Context(), path, &progress); err != nil {
		t.Errorf("lock after unlock: %v", err)
	}
}

func TestPrograms(t *testing.T) {
	// The go command shall keep its own cache.
	gocache, err := goCommand(t.Context(), ".", "env", "GOCACHE")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", gocache)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	if err := Programs(t.Context(), dir, false, &bytes.Buffer{}, "test/lab/cmd/labpod"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "labpod")); err != nil {
		t.Error(err)
	}
	if err := Programs(t.Context(), dir, false, &bytes.Buffer{}, "cmd/nothing"); !errors.Is(err, ErrNoProgram) {
		t.Errorf("a program that does not exist: %v", err)
	}
}
