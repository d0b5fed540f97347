package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/onelb/onelb/test/lab/debian"
)

// kernelPackage depends on the newest kernel for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// errNoKernel is returned for a package without a kernel, or with several.
var errNoKernel = errors.New("want one kernel")

// findKernel returns the directory with the kernel's files, and its version.
func findKernel(ctx context.Context, cache string) (root, version string, err error) {
	if root, err = debian.Unpack(ctx, cache, kernelPackage); err != nil {
		return "", "", fmt.Errorf("fetch a kernel: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("%s: %w, have %v", root, errNoKernel, found)
	}
	return root, strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// fileSystem is all that the machine has.
func fileSystem(ctx context.Context, o Options, kernel, version string) (tree, error) {
	t := tree{}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "var/tmp"} {
		t.dir(dir)
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		t.dir("usr/" + dir)
		t.link(dir, "usr/"+dir)
	}
	if err := t.addDynamic("init", o.Program, nil); err != nil {
		return nil, err
	}
	for to, from := range o.Files {
		if err := t.add(strings.TrimPrefix(to, "/"), from); err != nil {
			return nil, err
		}
	}
	for at, target := range o.Links {
		t.link(strings.TrimPrefix(at, "/"), target)
	}
	for _, tool := range append([]Tool{{Name: "kmod", Package: "kmod", Links: []string{"modprobe"}}}, o.Tools...) {
		if err := t.addTool(ctx, o.Cache, tool); err != nil {
			return nil, err
		}
	}
	t.file(modulesFile[1:], o.Modules)
	t.file(argumentsFile[1:], o.Args)
	t.file(environmentFile[1:], o.Env)
	t.file(directoryFile[1:], []string{o.Directory})
	return t, t.addModules(ctx, o.Cache, kernel, version)
}

// addTool adds a program with its libraries.
func (t tree) addTool(ctx context.Context, cache string, tool Tool) error {
	p, err := debian.Find(ctx, cache, tool.Name, tool.Package)
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(p.Path)
	if err != nil {
		return err
	}
	if err := t.addDynamic("usr/sbin/"+tool.Name, path, p.LibDirs); err != nil {
		return err
	}
	for _, name := range tool.Links {
		t.link("usr/sbin/"+name, tool.Name)
	}
	if tool.Plugins == "" {
		return nil
	}
	from := libraryDir
	if len(p.LibDirs) > 0 {
		from = p.LibDirs[0]
	}
	plugins, err := filepath.Glob(filepath.Join(from, tool.Plugins, "*.so"))
	if err != nil {
		return err
	}
	if len(plugins) == 0 {
		return fmt.Errorf("plugins of %s in %s/%s: %w", tool.Name, from, tool.Plugins, fs.ErrNotExist)
	}
	for _, plugin := range plugins {
		if err := t.addDynamic(filepath.Join(libraryDir, tool.Plugins, filepath.Base(plugin))[1:], plugin, p.LibDirs); err != nil {
			return err
		}
	}
	return nil
}

// addModules adds the kernel's modules with the index that modprobe needs and that
// is made when the package is installed.
func (t tree) addModules(ctx context.Context, cache, kernel, version string) error {
	const modules = "lib/modules"
	from := filepath.Join(kernel, modules, version)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		from = filepath.Join(kernel, "usr", modules, version) // since Debian 13
	}
	if _, err := os.Stat(filepath.Join(from, "modules.dep.bin")); err != nil {
		kmod, err := debian.Find(ctx, cache, "kmod", "kmod")
		if err != nil {
			return err
		}
		base := strings.TrimSuffix(from, filepath.Join(modules, version))
		depmod := exec.CommandContext(ctx, kmod.Path, "--basedir", base, version)
		depmod.Args[0] = "depmod" // by which it knows what to do
		depmod.Env = kmod.Env()
		if out, err := depmod.CombinedOutput(); err != nil {
			return fmt.Errorf("index the modules of %s: %w: %s", version, err, out)
		}
	}
	return t.add(filepath.Join("usr", modules, version), from)
}
