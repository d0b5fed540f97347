// Package proc runs programs inside network namespaces and makes sure that none
// of them outlives its lab.
//
// Every program is started by one thread that lives as long as its Spawner, so
// the kernel's parent-death signal fires when the lab's process or its Spawner
// ends, and not when some Go thread is retired. Each runs in a process group of
// its own, writes to its own log file and carries an environment mark by which
// KillMarked finds what a killed lab may have left.
package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

// MarkVariable is the environment variable that names a process's lab.
const MarkVariable = "ONELB_LAB"

// ErrClosed is returned by a Spawner after Close.
var ErrClosed = errors.New("spawner is closed")

// Host is where a program runs: its network namespace.
type Host interface {
	Name() string
	Enter() (leave func() error, err error)
}

// Spawner starts processes from one thread.
type Spawner struct {
	mark   string
	env    []string
	work   chan func()
	done   chan struct{}
	closer sync.Once
}

// NewSpawner starts the spawning thread. Programs get env and the mark as their
// environment. Close ends the thread, and with it every process still running.
func NewSpawner(mark string, env []string) *Spawner {
	s := &Spawner{mark: mark, env: env, work: make(chan func()), done: make(chan struct{})}
	go s.run()
	return s
}

// run works on a thread that is never given back: it ends with the goroutine.
// Only the process's main thread does not (Go parks it instead), and then the
// kernel would not kill anything: who finds himself there hands the work on, and
// keeps the main thread until the other has one of its own.
func (s *Spawner) run() {
	runtime.LockOSThread()
	if syscall.Gettid() == syscall.Getpid() {
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			s.loop()
		}()
		<-started
		runtime.UnlockOSThread()
		return
	}
	s.loop()
}

func (s *Spawner) loop() {
	for {
		select {
		case f := <-s.work:
			f()
		case <-s.done:
			return
		}
	}
}

// Close ends the spawning thread. The kernel then kills what it started.
func (s *Spawner) Close() { s.closer.Do(func() { close(s.done) }) }

// onThread runs f on the spawning thread.
func (s *Spawner) onThread(f func() error) error {
	result := make(chan error, 1)
	select {
	case s.work <- func() { result <- f() }:
		return <-result
	case <-s.done:
		return ErrClosed
	}
}

// Spec describes a program.
type Spec struct {
	Name string   // unique in the lab; names the log file
	Path string   // binary
	Args []string // without the program's name
	Env  []string // in addition to the Spawner's
	Log  string   // file that stdout and stderr are appended to
}

// start launches spec inside host.
func (s *Spawner) start(host Host, spec Spec) (*exec.Cmd, error) {
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:noctx // ended by Unit, in order
	cmd.Env = append(append([]string{MarkVariable + "=" + s.mark}, s.env...), spec.Env...)
	cmd.Dir = filepath.Dir(spec.Log)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = s.onThread(func() error {
		leave, err := host.Enter()
		if err != nil {
			return err
		}
		err = cmd.Start()
		if back := leave(); back != nil {
			return errors.Join(err, fmt.Errorf("leave %s: %w", host.Name(), back))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", spec.Name, host.Name(), err)
	}
	return cmd, nil
}
