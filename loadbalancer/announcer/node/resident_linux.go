package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// startTime is when what only the start needs has run: connections are made, caches
// are filled.
const startTime = time.Minute

// unmapStart gives back, once, the pages of the program file: half of them are code that
// only the start runs. What is run again is mapped again, from the page cache, some
// microseconds for 64 KiB; the kernel may take the rest when a node runs short.
func unmapStart(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(startTime):
	}
	if err := unmapProgram(); err != nil {
		klog.FromContext(ctx).V(2).Info("Pages of the program that only the start needs are kept", "reason", err.Error())
	}
	return nil
}

func unmapProgram() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read this program's mappings: %w", err)
	}
	defer func() { _ = f.Close() }()
	all, err := unmodified(f, path)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range all {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.begin, m.end-m.begin, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, fmt.Errorf("give back %x-%x: %w", m.begin, m.end, errno))
		}
	}
	return errors.Join(errs...)
}

// mapping is a part of this process' memory, from begin up to end.
type mapping struct{ begin, end uintptr }

// unmodified are the mappings of a file, in the form of proc_pid_smaps(5), that cannot be
// written now and of which no page was ever: what is read there again is what was there.
func unmodified(smaps io.Reader, path string) (out []mapping, err error) {
	var current *mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && !strings.HasSuffix(fields[0], ":"): // begins the next mapping
			current = nil
			if len(fields) < 6 || fields[5] != path || fields[1] != "r-xp" && fields[1] != "r--p" {
				continue
			}
			if current, err = parseMapping(fields[0]); err != nil {
				return nil, err
			}
		case current != nil && len(fields) == 3 && fields[0] == "Anonymous:":
			if fields[1] == "0" {
				out = append(out, *current)
			}
			current = nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	return out, nil
}

func parseMapping(s string) (*mapping, error) {
	from, to, _ := strings.Cut(s, "-")
	begin, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("mapping %q: %w", s, err)
	}
	return &mapping{uintptr(begin), uintptr(end)}, nil
}
