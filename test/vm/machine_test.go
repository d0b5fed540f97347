package vm

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestStatus plays the machine: what it prints last counts.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		what, script string
		status       int
		err          error
		printed      string
	}{
		{"passed", `printf 'ok\r\n` + statusLine + `0\r\n'`, 0, nil, "ok\n"},
		{"failed", `echo "` + statusLine + `3"`, 3, nil, ""},
		{"a panic of the kernel", `echo panic; exit 0`, 0, ErrEnded, "panic\n"},
		{"nonsense", `echo "` + statusLine + `x"`, 0, ErrEnded, ""},
		{"no emulator", `exit 1`, 0, ErrEnded, ""},
	} {
		var out bytes.Buffer
		status, err := run(t.Context(), exec.CommandContext(t.Context(), "sh", "-c", c.script), &out)
		if status != c.status || !errors.Is(err, c.err) || out.String() != c.printed {
			t.Errorf("%s: status %d, error %v, output %q", c.what, status, err, out.String())
		}
	}
}

// TestDynamic adds a program that is linked with the C library.
func TestDynamic(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	files := tree{}
	err = files.addDynamic("usr/bin/sh", shell, nil)
	if errors.Is(err, errNoLibrary) {
		t.Skip("this system keeps its libraries elsewhere:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for at := range files {
		if strings.HasSuffix(at, "/libc.so.6") {
			return
		}
	}
	t.Errorf("no C library in %v", files)
}
