// Command site makes a static web site of the documentation:
//
//	site -root . -out build/site
//
// Every Markdown file of the repository becomes a page, other files that pages link
// to are copied beside them, and directories become lists. It fails, after it has
// written everything, if a link of a page leads nowhere: to a page, a heading or a
// file that is not there. Links to other sites are not followed. The output depends
// on the repository alone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "the repository")
	out := flag.String("out", "build/site", "directory to write; it is emptied first")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	s, err := read(root)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := s.write(out); err != nil {
		return err
	}
	if problems := s.check(); len(problems) > 0 {
		return errors.Join(problems...)
	}
	fmt.Printf("%d pages in %s\n", len(s.pages), filepath.Join(out, "index.html"))
	return nil
}
