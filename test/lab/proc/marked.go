package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Marked lists the processes that carry the mark of a lab, except the calling
// one, ascending.
func Marked(mark string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	want := []byte(MarkVariable + "=" + mark)
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Unreadable or empty: the process ended meanwhile, or is a zombie.
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if bytes.Equal(variable, want) {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

// KillMarked kills every process that carries the mark and waits until they are
// gone or ctx ends. The caller must know that no live lab uses the mark.
func KillMarked(ctx context.Context, mark string) error {
	for {
		pids, err := Marked(mark)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d of an earlier lab %q: %w", pid, mark, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of an earlier lab %q do not end: %w", pids, mark, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
