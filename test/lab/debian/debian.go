// Package debian finds a system program or fetches it without installing it.
//
// kube-proxy calls nft, which a fresh Debian has not. When a program is on the
// machine that one is used. Otherwise its package and what the package depends
// on are downloaded with apt-get and unpacked into the cache directory: nothing
// on the system changes, and the next lab finds it there.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program is a program and the environment it needs.
type Program struct {
	Path    string   // binary
	BinDirs []string // directories for PATH
	LibDirs []string // directories for LD_LIBRARY_PATH; empty for one of the system
}

// Env is the environment for programs that call this one.
func (p Program) Env() []string {
	path := append([]string{}, p.BinDirs...)
	path = append(path, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	env := []string{"PATH=" + strings.Join(path, ":")}
	if len(p.LibDirs) > 0 {
		env = append(env, "LD_LIBRARY_PATH="+strings.Join(p.LibDirs, ":"))
	}
	return env
}

// systemDirs are searched besides PATH: a plain user's PATH lacks sbin.
var systemDirs = []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"}

// Find returns the program of the given name, from the system or else from the
// Debian package pkg, unpacked below cache.
func Find(ctx context.Context, cache, name, pkg string) (Program, error) {
	if path, err := exec.LookPath(name); err == nil {
		return Program{Path: path, BinDirs: []string{filepath.Dir(path)}}, nil
	}
	for _, dir := range systemDirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return Program{Path: path, BinDirs: []string{dir}}, nil
		}
	}
	if p, err := unpacked(packageRoot(cache, pkg), name); err == nil {
		return p, nil
	}
	root, err := Unpack(ctx, cache, pkg)
	if err != nil {
		return Program{}, fmt.Errorf("%s is not on this machine and its package cannot be fetched (install %s): %w", name, pkg, err)
	}
	return unpacked(root, name)
}

func packageRoot(cache, pkg string) string { return filepath.Join(cache, "debian", pkg) }

// Unpack returns the directory below cache with the files of a Debian package and
// of those it needs and the system has not. They are fetched once.
func Unpack(ctx context.Context, cache, pkg string) (root string, err error) {
	root = packageRoot(cache, pkg)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	return root, fetch(ctx, root, pkg)
}

// unpacked looks for the program below an unpacked root.
func unpacked(root, name string) (Program, error) {
	for _, dir := range []string{"usr/sbin", "usr/bin", "sbin", "bin"} {
		path := filepath.Join(root, dir, name)
		if _, err := os.Stat(path); err == nil {
			libs, err := libraries(root)
			if err != nil {
				return Program{}, fmt.Errorf("libraries of %s: %w", name, err)
			}
			return Program{Path: path, BinDirs: []string{filepath.Dir(path)}, LibDirs: libs}, nil
		}
	}
	return Program{}, fmt.Errorf("%s below %s: %w", name, root, fs.ErrNotExist)
}

// libraries are the directories with shared libraries below an unpacked root: some
// packages still use /lib.
func libraries(root string) ([]string, error) {
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, found...)
	}
	return dirs, nil
}

// attempts of a download, since mirrors fail now and then.
const attempts = 3

// fetch downloads pkg with the packages it needs and unpacks them to root. One at a
// time does so, since apt-get ends where another one runs: tests of several packages
// may need programs at once.
func fetch(ctx context.Context, root, pkg string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(root), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // and unlock
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
	}
	if _, err := os.Stat(root); err == nil {
		return nil // somebody else has fetched it meanwhile
	}
	work, err := os.MkdirTemp(filepath.Dir(root), "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	archives, tree := filepath.Join(work, "archives"), filepath.Join(work, "tree")
	for _, dir := range []string{filepath.Join(archives, "partial"), tree} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for left := attempts; ; left-- {
		if err := download(ctx, archives, pkg); err == nil {
			break
		} else if left == 1 || pause(ctx, 5*time.Second) != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := command(ctx, "dpkg-deb", "-x", deb, tree); err != nil {
			return err
		}
	}
	if err := os.Rename(tree, root); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func download(ctx context.Context, archives, pkg string) error {
	args := []string{
		"-q", "-y", "--no-install-recommends", "--download-only",
		"-o", "Dir::Cache::archives=" + archives, "-o", "APT::Sandbox::User=root", "install", pkg,
	}
	if err := command(ctx, "apt-get", args...); err == nil {
		return nil
	}
	// A fresh machine has no package lists yet.
	if err := command(ctx, "apt-get", "-q", "update"); err != nil {
		return err
	}
	return command(ctx, "apt-get", args...)
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
