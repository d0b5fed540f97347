package proc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab/proc"
)

// here is a host that is this very machine.
type here struct{}

func (here) Name() string                           { return "here" }
func (here) Enter() (leave func() error, err error) { return func() error { return nil }, nil }

func newUnit(t *testing.T, script string) (*proc.Spawner, *proc.Unit) {
	t.Helper()
	s := proc.NewSpawner(mark(t), []string{"PATH=" + os.Getenv("PATH")})
	t.Cleanup(s.Close)
	return s, s.NewUnit(here{}, proc.Spec{
		Name: "script", Path: "/bin/sh", Args: []string{"-c", script},
		Log: filepath.Join(t.TempDir(), "logs", "script.log"),
	})
}

func mark(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), os.Getpid()) }

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited too long for " + what)
		}
	}
}

func logHas(u *proc.Unit, text string) func() bool {
	return func() bool { return strings.Contains(u.Tail(50), text) }
}

func TestUnit(t *testing.T) {
	_, u := newUnit(t, `trap 'echo ended; exit 0' TERM; echo started; while :; do sleep 0.01; done`)
	if u.Running() || u.PID() != 0 {
		t.Error("runs before its start")
	}
	if err := u.Stop(); err != nil {
		t.Errorf("stop of what never ran: %v", err)
	}
	if err := u.Signal(syscall.SIGHUP); !errors.Is(err, proc.ErrNotRunning) {
		t.Errorf("signal to what never ran: %v", err)
	}
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	if err := u.Start(); !errors.Is(err, proc.ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	wait(t, "the start", logHas(u, "started"))
	if err := u.Restart(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the restart", func() bool { return strings.Count(u.Tail(50), "started") == 2 })
	if err := u.Kill(); err != nil {
		t.Fatal(err)
	}
	if u.Running() || u.Err() == nil {
		t.Errorf("after a kill: running %v, error %v", u.Running(), u.Err())
	}
	if log, err := u.Log(); err != nil || strings.Count(log, "ended") != 1 {
		t.Errorf("a killed program ended in order: %q, %v", log, err)
	}
}

// TestStopStopped ends a program that SIGSTOP has stopped.
func TestStopStopped(t *testing.T) {
	_, u := newUnit(t, `trap 'echo ended; exit 0' TERM; echo started; while :; do sleep 0.01; done`)
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the start", logHas(u, "started"))
	if err := u.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := u.Stop(); err != nil {
		t.Fatal(err)
	}
	if !logHas(u, "ended")() {
		t.Error("the program was not told to end")
	}
}

// TestSpawnerClose holds that nothing outlives the spawning thread.
func TestSpawnerClose(t *testing.T) {
	s, u := newUnit(t, `sleep 1000`)
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	wait(t, "the kernel to kill the program", func() bool { return !u.Running() })
	if err := u.Start(); !errors.Is(err, proc.ErrClosed) {
		t.Errorf("start after Close: %v", err)
	}
}

func TestMarked(t *testing.T) {
	_, u := newUnit(t, `sleep 1000`)
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	pids, err := proc.Marked(mark(t))
	if err != nil || len(pids) == 0 || pids[0] != u.PID() {
		t.Errorf("marked processes: %v, %v; want %d", pids, err, u.PID())
	}
	// A mark is compared whole.
	if pids, err := proc.Marked(mark(t)[:5]); err != nil || len(pids) != 0 {
		t.Errorf("processes of a shorter mark: %v, %v", pids, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := proc.KillMarked(ctx, mark(t)); err != nil {
		t.Fatal(err)
	}
	wait(t, "the program to be gone", func() bool { return !u.Running() })
}
