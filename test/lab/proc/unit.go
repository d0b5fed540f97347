package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// StopTimeout is how long Stop waits after SIGTERM before it kills.
const StopTimeout = 10 * time.Second

var (
	// ErrRunning is returned when a unit is started twice.
	ErrRunning = errors.New("is running already")
	// ErrNotRunning is returned when a unit that does not run gets a signal.
	ErrNotRunning = errors.New("does not run")
	// ErrKilled is returned by Stop when SIGTERM did not end the program in time.
	ErrKilled = errors.New("did not end on SIGTERM and was killed")
)

// Unit is one program of the lab, which may be started and ended many times.
// Its methods may be called from several goroutines.
type Unit struct {
	spawner *Spawner
	host    Host
	spec    Spec

	mu  sync.Mutex // guards run
	run *run       // the latest run; nil before the first
}

// run is one life of the program.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has been reaped
	err  error         // valid after done
}

// NewUnit describes a program; nothing is started.
func (s *Spawner) NewUnit(host Host, spec Spec) *Unit {
	return &Unit{spawner: s, host: host, spec: spec}
}

// Name is the unit's name.
func (u *Unit) Name() string { return u.spec.Name }

// LogPath is the file with the program's output of all its runs.
func (u *Unit) LogPath() string { return u.spec.Log }

// Command is the command line, for people.
func (u *Unit) Command() string {
	return strings.Join(append([]string{u.spec.Path}, u.spec.Args...), " ")
}

// Start starts the program.
func (u *Unit) Start() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.run != nil && u.run.alive() {
		return fmt.Errorf("start %s: %w", u.spec.Name, ErrRunning)
	}
	cmd, err := u.spawner.start(u.host, u.spec)
	if err != nil {
		return err
	}
	r := &run{cmd: cmd, done: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		close(r.done)
	}()
	u.run = r
	return nil
}

// Running says whether the process exists (stopped by SIGSTOP counts).
func (u *Unit) Running() bool {
	r := u.current()
	return r != nil && r.alive()
}

// PID is the process ID, 0 when the program does not run.
func (u *Unit) PID() int {
	r := u.current()
	if r == nil || !r.alive() {
		return 0
	}
	return r.cmd.Process.Pid
}

// Done is closed when the current run has ended. It is nil, and so blocks
// forever, before the first start.
func (u *Unit) Done() <-chan struct{} {
	r := u.current()
	if r == nil {
		return nil
	}
	return r.done
}

// Err says how the latest run ended; nil while it runs or after exit code 0.
func (u *Unit) Err() error {
	r := u.current()
	if r == nil || r.alive() {
		return nil
	}
	return r.err
}

// Signal sends a signal to the program's process group.
func (u *Unit) Signal(sig syscall.Signal) error {
	r := u.current()
	if r == nil || !r.alive() {
		return fmt.Errorf("signal %s: %w", u.spec.Name, ErrNotRunning)
	}
	if err := syscall.Kill(-r.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", u.spec.Name, err)
	}
	return nil
}

// Stop ends the program with SIGTERM and waits. A program that does not run is
// no error; one that needs killing is ErrKilled.
func (u *Unit) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), StopTimeout)
	defer cancel()
	r := u.current()
	if r == nil || !r.alive() {
		return nil
	}
	// A stopped process would keep SIGTERM pending for ever.
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := u.Signal(sig); err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop %s: %w", u.spec.Name, ErrKilled), u.Kill())
	}
}

// Kill ends the program with SIGKILL and waits. A program that does not run is
// no error.
func (u *Unit) Kill() error {
	r := u.current()
	if r == nil || !r.alive() {
		return nil
	}
	if err := u.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	<-r.done
	return nil
}

// Restart stops the program in order and starts it again.
func (u *Unit) Restart() error {
	if err := u.Stop(); err != nil {
		return err
	}
	return u.Start()
}

// Log is the program's output of all its runs so far.
func (u *Unit) Log() (string, error) {
	b, err := os.ReadFile(u.spec.Log)
	if err != nil {
		return "", fmt.Errorf("log of %s: %w", u.spec.Name, err)
	}
	return string(b), nil
}

// Tail is the last n lines of the log; an unreadable log says so.
func (u *Unit) Tail(n int) string {
	log, err := u.Log()
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (u *Unit) current() *run {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.run
}

func (r *run) alive() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}
