package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/onelb/onelb/test/lab/ns"
	"github.com/onelb/onelb/test/lab/proc"
)

// runDir holds the labs' locks and, by default, their directories.
const runDir = "/run/onelb-lab"

// namespacePrefix starts the name of every namespace of every lab.
const namespacePrefix = "onelb-"

// ErrInUse is returned when a live lab has the name already.
var ErrInUse = errors.New("another lab with this name is running")

// claim is the hold on a lab's name. The kernel gives it up when the process
// dies, and no child inherits it, so whoever holds it knows that anything left
// under the name belongs to nobody.
type claim struct{ file *os.File }

// claimName takes the name or fails with ErrInUse.
func claimName(name string) (*claim, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("claim lab %q: %w", name, err)
	}
	path := filepath.Join(runDir, name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, fmt.Errorf("claim lab %q: %w", name, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			owner, _ := os.ReadFile(path)
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("lab %q, process %s: %w", name, strings.TrimSpace(string(owner)), ErrInUse)
			}
			return nil, fmt.Errorf("claim lab %q: %w", name, err)
		}
		// The owner before us may have removed the file we have just locked.
		ours, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 != nil || err2 != nil || !os.SameFile(ours, there) {
			_ = f.Close()
			continue
		}
		if err := f.Truncate(0); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("claim lab %q: %w", name, err)
		}
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		return &claim{f}, err
	}
}

// release removes the lock.
func (c *claim) release() error {
	err := os.Remove(c.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, c.file.Close())
}

// sweep removes what a lab has left: processes, then namespaces (and with them
// links, addresses and rules), then its directory. The caller holds the claim.
func sweep(ctx context.Context, name, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := proc.KillMarked(ctx, name); err != nil {
		return err
	}
	// Longer names may start with ours: "onelb-a-" against lab "a-b".
	names, err := ns.Named(namespacePrefix + name + "-")
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		if ownsNamespace(name, n) {
			errs = append(errs, ns.DeleteNamed(n))
		}
	}
	if dir != "" {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// hostNames are what the hosts of a lab are called, with a dash where a number or
// name follows. Options refuse a lab's name that contains one.
var hostNames = []string{"switch", "control", "internet", "lan", "router-", "node-", "pod-"}

// ownsNamespace says whether a namespace with the lab's prefix is the lab's own
// and not that of a lab with a longer name.
func ownsNamespace(lab, namespace string) bool {
	rest := strings.TrimPrefix(namespace, namespacePrefix+lab+"-")
	for _, h := range hostNames {
		if rest == h || strings.HasSuffix(h, "-") && strings.HasPrefix(rest, h) {
			return true
		}
	}
	return false
}
