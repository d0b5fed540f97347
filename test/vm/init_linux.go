package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// insideVariable says to the program that it is in the machine.
	insideVariable = "ONELB_VM"
	// statusLine is the machine's last word, followed by the program's exit status.
	statusLine = "onelb-vm: exit status "

	// What Run was told, a line each.
	modulesFile     = "/etc/vm/modules"
	argumentsFile   = "/etc/vm/arguments"
	environmentFile = "/etc/vm/environment"
	directoryFile   = "/etc/vm/directory"
)

// Inside says whether this process is the program of a machine.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Init does nothing unless the caller is process 1 of a machine. Then it prepares
// the machine, starts the program again with the arguments of Run, waits for it, and
// turns the machine off. Call it first of all.
func Init() {
	if os.Getpid() != 1 {
		return
	}
	if _, err := os.Stat(argumentsFile); err != nil {
		return // of a container
	}
	status, err := boot()
	if err != nil {
		fmt.Println("onelb-vm:", err)
	}
	fmt.Printf("%s%d\n", statusLine, status)
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("onelb-vm: power off:", err)
	select {} // the end of process 1 would be a panic of the kernel
}

// boot runs the program; the status is 1 if that fails.
func boot() (status int, err error) {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return 1, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return 1, fmt.Errorf("set the host name: %w", err)
	}
	for _, module := range lines(modulesFile) {
		if out, err := exec.Command("/usr/sbin/modprobe", module).CombinedOutput(); err != nil { //nolint:noctx // the machine has a deadline
			return 1, fmt.Errorf("load module %s: %w: %s", module, err, out)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 1, fmt.Errorf("loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return 1, fmt.Errorf("loopback: %w", err)
	}
	program := exec.Command("/init", lines(argumentsFile)...) //nolint:noctx // the machine has a deadline
	program.Env = append(lines(environmentFile), insideVariable+"=1", "HOME=/root", "PATH=/usr/sbin:/usr/bin")
	program.Dir = strings.Join(lines(directoryFile), "")
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	err = program.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, fmt.Errorf("start the program: %w", err)
	}
	return 0, nil
}

// lines of a file; none of one that does not exist.
func lines(path string) []string {
	content, err := os.ReadFile(path)
	if err != nil || len(content) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
}
