package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// libraryDir is where Debian has its libraries, on the host and in the machine.
const libraryDir = "/usr/lib/x86_64-linux-gnu"

// errNoLibrary is returned for a program that needs a library which is nowhere.
var errNoLibrary = errors.New("library not found")

// addDynamic puts a program or library of the host at a path, and what it is linked
// with at the usual places. Libraries are looked for in dirs, then in the host's.
func (t tree) addDynamic(at, source string, dirs []string) error {
	if err := t.add(at, source); err != nil {
		return err
	}
	file, err := elf.Open(source)
	if err != nil {
		return fmt.Errorf("read %s: %w", source, err)
	}
	defer func() { _ = file.Close() }()
	needed, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", source, err)
	}
	if loader := interpreter(file); loader != "" { // such as /lib64/ld-linux-x86-64.so.2
		if err := t.add("usr"+loader, loader); err != nil {
			return err
		}
	}
	for _, name := range needed {
		to := filepath.Join(libraryDir, name)[1:]
		if _, found := t[to]; found {
			continue
		}
		from, err := findLibrary(name, dirs)
		if err != nil {
			return fmt.Errorf("%s needs %s: %w", source, name, err)
		}
		if err := t.addDynamic(to, from, dirs); err != nil {
			return err
		}
	}
	return nil
}

func findLibrary(name string, dirs []string) (string, error) {
	for _, dir := range append(slices.Clone(dirs), libraryDir, "/lib/x86_64-linux-gnu") {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errNoLibrary
}

// interpreter is the program that loads a dynamic one, empty for a library.
func interpreter(file *elf.File) string {
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err == nil {
				return string(bytes.TrimRight(path, "\x00"))
			}
		}
	}
	return ""
}
