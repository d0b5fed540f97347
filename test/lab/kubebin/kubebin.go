// Package kubebin builds the binaries that the lab runs: etcd and the
// Kubernetes programs of the module test/kube, and onelb's own.
//
// Results are kept below ${XDG_CACHE_HOME:-$HOME/.cache}/onelb. The Kubernetes
// binary is stored under a key made of its module's content and the Go version,
// so a build happens once for each; a file lock keeps two processes from doing
// it twice, and a rename publishes the complete directory only. A build that is
// interrupted leaves the earlier state.
package kubebin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// KubeVersion is the Kubernetes version that test/kube builds; the programs
// report it.
const KubeVersion = "v1.37.1"

// kubePrograms are the names the combined binary answers to.
var kubePrograms = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"}

// Names are the names of the programs that Build makes, all of them links to its
// file kube.
func Names() []string { return slices.Clone(kubePrograms) }

// keepKeys is how many builds are kept: the one in use and one to go back to.
const keepKeys = 2

// BuiltVariable is the environment variable that names a directory in which
// everything has been built before, for machines without the sources: Kubernetes in
// kube and onelb's programs in bin.
const BuiltVariable = "ONELB_BUILT"

// CacheDir is where built and fetched things are kept between runs.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(dir, "onelb"), nil
}

// Build returns a directory that holds etcd, kube-apiserver,
// kube-controller-manager, kube-proxy and kubectl. The first build takes about
// twelve minutes on two cores; how far it is goes to progress.
func Build(ctx context.Context, progress io.Writer) (dir string, err error) {
	if built := os.Getenv(BuiltVariable); built != "" {
		return filepath.Join(built, "kube"), nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "test", "kube")
	key, err := contentKey(ctx, module)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", module, err)
	}
	builds := filepath.Join(cache, "kube")
	dir = filepath.Join(builds, key)
	if used(dir) {
		return dir, nil
	}
	unlock, err := lock(ctx, filepath.Join(builds, "lock"), progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if used(dir) { // another process built it while we waited
		return dir, nil
	}
	if err := build(ctx, module, dir, progress); err != nil {
		return "", err
	}
	return dir, prune(builds, key)
}

// used says whether dir is a complete build and notes the time of its use.
func used(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "kube")); err != nil {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // only prune's order depends on it
	return true
}

// build makes dir in one step from a temporary directory beside it.
func build(ctx context.Context, module, dir string, progress io.Writer) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "tmp-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(progress, "building etcd and Kubernetes %s; the first time this takes about 12 minutes on two cores\n", KubeVersion)
	err = goBuild(ctx, goBuildOptions{
		Dir:      module,
		Output:   filepath.Join(tmp, "kube"),
		Packages: []string{"./cmd/kube"},
		Release:  true,
		LDFlags:  "-s -w -X k8s.io/component-base/version.gitVersion=" + KubeVersion,
		Label:    "kubernetes",
		Progress: progress,
	})
	if err != nil {
		return fmt.Errorf("build %s: %w", module, err)
	}
	for _, name := range kubePrograms {
		if err := os.Symlink("kube", filepath.Join(tmp, name)); err != nil {
			return err
		}
	}
	return os.Rename(tmp, dir)
}

// contentKey identifies what a build of module would produce.
func contentKey(ctx context.Context, module string) (string, error) {
	h := sha256.New()
	version, err := goCommand(ctx, module, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "%s\n%s\n", version, KubeVersion)
	files := []string{"go.mod", "go.sum"}
	err = filepath.WalkDir(filepath.Join(module, "cmd"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
			rel, _ := filepath.Rel(module, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(content))
		h.Write(content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// prune removes all builds but the most recently used, and what interrupted
// builds left. The caller holds the lock.
func prune(builds, current string) error {
	entries, err := os.ReadDir(builds)
	if err != nil {
		return err
	}
	type build struct {
		name string
		used time.Time
	}
	var old []build
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil || !e.IsDir() || e.Name() == current:
			continue
		case strings.HasPrefix(e.Name(), "tmp-"):
			old = append(old, build{name: e.Name()}) // the zero time sorts last
		default:
			old = append(old, build{name: e.Name(), used: info.ModTime()})
		}
	}
	slices.SortFunc(old, func(a, b build) int { return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.name, b.name)) })
	var errs []error
	kept := 1 // current
	for _, b := range old {
		if kept < keepKeys && !b.used.IsZero() {
			kept++
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(builds, b.name)))
	}
	return errors.Join(errs...)
}
