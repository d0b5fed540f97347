package vm

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is a file system to be: what stands at each path of the machine, without the
// leading slash.
type tree map[string]entry

// entry is a directory, a file of the host, or a symbolic link.
type entry struct {
	mode   fs.FileMode
	source string // of a file: its path on the host
	text   string // of a link: where it points to; of a file without source: its content
}

// dir makes a directory and those above it.
func (t tree) dir(at string) {
	for ; at != "." && at != ""; at = path.Dir(at) {
		if _, found := t[at]; !found {
			t[at] = entry{mode: fs.ModeDir | 0o755}
		}
	}
}

// link makes a symbolic link.
func (t tree) link(at, target string) {
	t.dir(path.Dir(at))
	t[at] = entry{mode: fs.ModeSymlink | 0o777, text: target}
}

// file makes a file of the given lines.
func (t tree) file(at string, lines []string) {
	t.dir(path.Dir(at))
	e := entry{mode: 0o644}
	if len(lines) > 0 {
		e.text = strings.Join(lines, "\n") + "\n"
	}
	t[at] = e
}

// add puts a file of the host, or a directory with all that is in it, at a path.
// Symbolic links to files become files, since what they point to may be elsewhere.
func (t tree) add(at, source string) error {
	return filepath.WalkDir(source, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		to := path.Join(at, filepath.ToSlash(rel))
		switch {
		case info.IsDir():
			t.dir(to)
		case info.Mode().IsRegular():
			t.dir(path.Dir(to))
			t[to] = entry{mode: info.Mode().Perm(), source: p}
		default:
			return fmt.Errorf("%s is neither file nor directory", p)
		}
		return nil
	})
}

// write writes the tree in the format that the kernel unpacks at its start ("newc"
// of cpio), the same bytes for the same tree.
func (t tree) write(w io.Writer) error {
	number := 0
	for _, name := range slices.Sorted(maps.Keys(t)) { // a directory sorts before what is in it
		number++
		if err := t[name].write(w, name, number); err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
	}
	return header(w, "TRAILER!!!", 0, 0, 0)
}

func (e entry) write(w io.Writer, name string, number int) error {
	const directory, regular, symlink = 0o040000, 0o100000, 0o120000
	switch {
	case e.mode.IsDir():
		return header(w, name, number, directory|uint32(e.mode.Perm()), 0)
	case e.source == "":
		kind := uint32(regular)
		if e.mode&fs.ModeSymlink != 0 {
			kind = symlink
		}
		size := int64(len(e.text))
		if err := header(w, name, number, kind|uint32(e.mode.Perm()), size); err != nil {
			return err
		}
		_, err := io.WriteString(w, e.text+padding(size))
		return err
	}
	file, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := header(w, name, number, regular|uint32(e.mode.Perm()), info.Size()); err != nil {
		return err
	}
	if _, err := io.CopyN(w, file, info.Size()); err != nil {
		return err
	}
	_, err = io.WriteString(w, padding(info.Size()))
	return err
}

// header writes what stands before the content. Everything belongs to root, and
// time is the epoch.
func header(w io.Writer, name string, number int, mode uint32, size int64) error {
	const zero = 0
	text := "070701"
	for _, field := range []int64{
		int64(number), int64(mode), zero, zero, 1, zero, size, // inode, mode, user, group, links, time, size
		zero, zero, zero, zero, int64(len(name)) + 1, zero, // devices, length of the name, checksum
	} {
		text += fmt.Sprintf("%08X", field)
	}
	text += name + "\x00"
	_, err := io.WriteString(w, text+padding(int64(len(text))))
	return err
}

// padding fills up to a multiple of four.
func padding(size int64) string { return "\x00\x00\x00"[:-size&3] }
