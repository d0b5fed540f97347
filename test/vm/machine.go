package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/onelb/onelb/test/lab/debian"
)

var (
	// ErrPlatform is returned on machines whose programs the kernel cannot run.
	ErrPlatform = errors.New("the virtual machine needs Linux on amd64")
	// ErrEnded is returned when the machine ended without the program's exit status.
	ErrEnded = errors.New("the machine ended before its program")
)

// Tool is a system program that the machine needs.
type Tool struct {
	Name    string
	Package string   // Debian's, with which it comes
	Links   []string // further names that it answers to
	Plugins string   // a directory below the libraries', with what it loads by itself
}

// Options of Run.
type Options struct {
	// Program is the binary to run, and Args, Env and Directory are what it
	// is started with.
	Program   string
	Args, Env []string
	Directory string
	// Files are files and directories of this machine, by their absolute paths in
	// the virtual one.
	Files map[string]string
	// Links are symbolic links in the virtual machine.
	Links map[string]string
	Tools []Tool
	// Modules are loaded at the start, others when the kernel asks for them.
	Modules []string
	// Memory is in MiB. The archive must fit in half of it.
	Memory, Processors int
	// Cache is a directory for unpacked packages.
	Cache string
	// Output gets what the machine prints on its console.
	Output io.Writer
}

// Run runs the program in a machine of its own and returns its exit status. ctx
// bounds all of it.
func Run(ctx context.Context, o Options) (status int, err error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return 0, ErrPlatform
	}
	qemu, err := debian.Find(ctx, o.Cache, "qemu-system-x86_64", "qemu-system-x86")
	if err != nil {
		return 0, err
	}
	kernel, version, err := findKernel(ctx, o.Cache)
	if err != nil {
		return 0, err
	}
	files, err := fileSystem(ctx, o, kernel, version)
	if err != nil {
		return 0, err
	}
	archive, err := unnamed(files)
	if err != nil {
		return 0, err
	}
	defer func() { _ = archive.Close() }()
	cmd := exec.CommandContext(ctx, qemu.Path, arguments(o, filepath.Join(kernel, "boot", "vmlinuz-"+version))...)
	cmd.Env = qemu.Env()
	cmd.ExtraFiles = []*os.File{archive}
	return run(ctx, cmd, o.Output)
}

// arguments of the emulator. No device but a serial line: nothing to configure, and
// nothing of this machine that it could touch.
func arguments(o Options, kernel string) []string {
	return []string{
		"-accel", "tcg", "-cpu", "max", "-smp", strconv.Itoa(o.Processors), "-m", strconv.Itoa(o.Memory),
		"-kernel", kernel, "-initrd", "/proc/self/fd/3", // the first of ExtraFiles
		// A panic ends the machine. Nobody attacks it, the fifth level of its page tables
		// would only cost time, and so would a clock that is a device: the kernel does
		// not trust the counters of several processors, which here are one.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off no5lvl tsc=reliable", "-no-reboot",
		"-nodefaults", "-no-user-config", "-nographic", "-serial", "stdio", "-nic", "none",
	}
}

// unnamed writes the archive to a file without a name, which is gone with whoever
// has it open.
func unnamed(files tree) (*os.File, error) {
	f, err := os.CreateTemp("", "onelb-vm-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(files.write(w), w.Flush()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// run runs the emulator, copies the console to out and reads the status from it.
func run(ctx context.Context, cmd *exec.Cmd, out io.Writer) (status int, err error) {
	console, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 10 * time.Second
	// The signal comes when the thread that started the emulator ends, so this one
	// must live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	status = -1
	scanner := bufio.NewScanner(console)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := strings.TrimRight(scanner.Text(), "\r")
		if text, found := strings.CutPrefix(line, statusLine); found {
			if status, err = strconv.Atoi(text); err != nil {
				status = -1
			}
			continue
		}
		fmt.Fprintln(out, line)
	}
	_, _ = io.Copy(io.Discard, console) // a line beyond the buffer must not block the machine
	err = cmd.Wait()
	if status < 0 || ctx.Err() != nil {
		return 0, errors.Join(ErrEnded, err, ctx.Err(), scanner.Err())
	}
	return status, nil
}
