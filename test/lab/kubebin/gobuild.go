package kubebin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// modulePath is the root module, by which ModuleRoot knows it.
const modulePath = "github.com/onelb/onelb"

// reportEvery is how often a running build says how far it is.
const reportEvery = 15 * time.Second

// ErrNoModule is returned when the working directory is outside the repository.
var ErrNoModule = errors.New("not inside the module " + modulePath)

// ModuleRoot finds the repository from the working directory upwards.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(content, []byte("module "+modulePath+"\n")) {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", ErrNoModule
	}
}

// goCommand runs the go command in dir and returns its output.
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// goBuildOptions says what goBuild builds.
type goBuildOptions struct {
	Dir      string // module directory
	Output   string // file, or directory for several packages
	Packages []string
	LDFlags  string
	Release  bool // build as for a release: static and without local paths
	Race     bool
	Label    string // names the build in progress lines
	Progress io.Writer
}

// goBuild runs `go build` and reports the packages it compiles.
func goBuild(ctx context.Context, o goBuildOptions) error {
	args, env := []string{"build", "-v", "-o", o.Output}, os.Environ()
	if o.Release {
		args, env = append(args, "-trimpath"), append(env, "CGO_ENABLED=0")
	}
	if o.Race {
		args, env = append(args, "-race"), append(env, "CGO_ENABLED=1")
	}
	if o.LDFlags != "" {
		args = append(args, "-ldflags", o.LDFlags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, o.Packages...)...)
	cmd.Dir = o.Dir
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The compilers and the linker are children: end them all with the command.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.WaitDelay = 5 * time.Second

	var compiled atomic.Int64
	output := make(chan string, 1)
	go func() { output <- readBuild(reader, &compiled) }()
	stop := make(chan struct{})
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		report(ctx, stop, o, &compiled)
	}()
	err := cmd.Run()
	_ = writer.Close()
	close(stop)
	<-reported
	messages := <-output
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", errors.Join(err, ctx.Err()), messages)
	}
	return nil
}

// readBuild counts the package names of `go build -v` and returns the rest of
// its output, which is the compiler's messages.
func readBuild(r io.Reader, compiled *atomic.Int64) string {
	var messages strings.Builder
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if line != "" && !strings.ContainsAny(line, " \t:#") {
			compiled.Add(1)
			continue
		}
		if messages.Len() < 16<<10 {
			messages.WriteString(line + "\n")
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line beyond the buffer must not block the build
	return strings.TrimSpace(messages.String())
}

// report writes a progress line now and then until stop is closed.
func report(ctx context.Context, stop <-chan struct{}, o goBuildOptions, compiled *atomic.Int64) {
	begin := time.Now()
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	total := 0
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		if total == 0 { // counted only for builds that take long enough to be reported
			list, err := goCommand(ctx, o.Dir, append([]string{"list", "-deps"}, o.Packages...)...)
			if err != nil {
				total = -1
			} else {
				total = strings.Count(list, "\n") + 1
			}
		}
		elapsed := time.Since(begin).Round(time.Second)
		if total > 0 {
			fmt.Fprintf(o.Progress, "%s: %d of at most %d packages, %s\n", o.Label, compiled.Load(), total, elapsed)
		} else {
			fmt.Fprintf(o.Progress, "%s: %d packages, %s\n", o.Label, compiled.Load(), elapsed)
		}
	}
}

// lock takes an exclusive lock on the file at path, telling progress when it has
// to wait.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			fmt.Fprintf(progress, "waiting for another process that builds (lock %s)\n", path)
			told = true
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// exists says whether dir holds Go code that is not only tests.
func exists(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go") {
			return true, nil
		}
	}
	return false, nil
}
