package kubebin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
)

// ErrNoProgram is returned for a package that does not exist in the module.
var ErrNoProgram = errors.New("no such program in this module")

// Programs builds commands of the root module, given as paths such as
// "cmd/onelb-node", and links them into dir under their base names. A later
// build does not change what stands in dir, so a running lab keeps its own
// version. With race, the race detector is built in (this needs a C compiler).
//
// The flags are those of a plain `go build`, not of a release: the packages that
// `go test` and `go run` have compiled already serve again, which on two cores
// saves minutes at the first run.
func Programs(ctx context.Context, dir string, race bool, progress io.Writer, packages ...string) error {
	if built := os.Getenv(BuiltVariable); built != "" {
		return placeAll(filepath.Join(built, "bin"), dir, packages)
	}
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	output := filepath.Join(cache, "bin")
	if race {
		output += "-race"
	}
	var targets []string
	for _, p := range packages {
		ok, err := exists(filepath.Join(root, p))
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("build %s: %w", p, ErrNoProgram)
		}
		targets = append(targets, "./"+p)
	}
	unlock, err := lock(ctx, filepath.Join(cache, "bin.lock"), progress)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	err = goBuild(ctx, goBuildOptions{
		Dir: root, Output: output + string(filepath.Separator), Packages: targets,
		Race: race, Label: "programs", Progress: progress,
	})
	if err != nil {
		return fmt.Errorf("build %v: %w", packages, err)
	}
	return placeAll(output, dir, packages)
}

// placeAll puts the packages' programs into dir.
func placeAll(from, dir string, packages []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range packages {
		if err := place(filepath.Join(from, path.Base(p)), filepath.Join(dir, path.Base(p))); err != nil {
			return fmt.Errorf("place %s: %w", p, err)
		}
	}
	return nil
}

// place puts a file at another path: as a hard link, or as a copy where the two
// are on different file systems.
func place(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
