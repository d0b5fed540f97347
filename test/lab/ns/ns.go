// Package ns makes named network namespaces and runs Go code inside them.
//
// A Namespace is a directory entry under /run/netns, so `ip netns exec` finds it.
// Code enters one through Do, which binds the calling goroutine to a thread for
// the duration: sockets and files opened inside stay in the namespace
// afterwards. Nothing here starts a goroutine that outlives its call. A thread
// that cannot be moved back is given up rather than reused.
package ns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dir is where named namespaces live.
const Dir = "/run/netns"

// ErrClosed is returned for a namespace that has been deleted.
var ErrClosed = errors.New("namespace is deleted")

// Namespace is one network namespace, named under Dir. Its methods may be
// called from several goroutines.
type Namespace struct {
	name string

	mu     sync.RWMutex // guards handle against Delete
	handle netns.NsHandle
}

// New makes a namespace with loopback up. It fails if the name is taken.
func New(name string) (*Namespace, error) {
	n := &Namespace{name: name, handle: netns.None()}
	err := onThread(func() error {
		handle, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		n.handle = handle
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	return n, nil
}

// Name is the name under Dir.
func (n *Namespace) Name() string { return n.name }

// Do runs f on a thread inside the namespace and returns its error. Goroutines
// that f starts are outside.
func (n *Namespace) Do(f func() error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.handle.IsOpen() {
		return fmt.Errorf("enter %s: %w", n.name, ErrClosed)
	}
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter %s: %w", n.name, err)
		}
		return f()
	})
}

// Enter moves the calling thread, which the caller has locked, into the
// namespace. The returned function moves it back.
func (n *Namespace) Enter() (leave func() error, err error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.handle.IsOpen() {
		return nil, fmt.Errorf("enter %s: %w", n.name, ErrClosed)
	}
	origin, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("read own namespace: %w", err)
	}
	if err := netns.Set(n.handle); err != nil {
		_ = origin.Close()
		return nil, fmt.Errorf("enter %s: %w", n.name, err)
	}
	return func() error {
		defer func() { _ = origin.Close() }()
		return netns.Set(origin)
	}, nil
}

// Netlink returns a route netlink handle bound to the namespace. The caller
// closes it.
func (n *Namespace) Netlink() (*netlink.Handle, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.handle.IsOpen() {
		return nil, fmt.Errorf("netlink in %s: %w", n.name, ErrClosed)
	}
	h, err := netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", n.name, err)
	}
	return h, nil
}

// FD is the namespace's file descriptor, for moving links into it. It is valid
// until Delete.
func (n *Namespace) FD() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return int(n.handle)
}

// DialContext dials from inside the namespace. The address must be an IP
// literal: a name would be resolved on a thread outside.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() error {
		var err error
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on a stream address inside the namespace.
func (n *Namespace) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() error {
		var err error
		l, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// Sysctl writes one setting below /proc/sys, such as "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		path := filepath.Join("/proc/sys", name)
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s in %s: %w", name, n.name, err)
		}
		return nil
	})
}

// ReadSysctl reads one setting below /proc/sys.
func (n *Namespace) ReadSysctl(name string) (string, error) {
	var value string
	err := n.Do(func() error {
		b, err := os.ReadFile(filepath.Join("/proc/sys", name))
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// Delete removes the name. The kernel ends the namespace when the last process
// and socket in it are gone. Deleting twice is harmless.
func (n *Namespace) Delete() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handle.IsOpen() {
		if err := n.handle.Close(); err != nil {
			return fmt.Errorf("close namespace %s: %w", n.name, err)
		}
	}
	return DeleteNamed(n.name)
}

// DeleteNamed removes a namespace's name; one that does not exist is no error.
func DeleteNamed(name string) error {
	path := filepath.Join(Dir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}

// Named lists the namespaces whose name starts with prefix, sorted.
func Named(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries { // ReadDir sorts
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// onThread runs f on a thread of its own choosing of namespaces and moves the
// thread back. If that fails the goroutine ends while locked, and the runtime
// discards the thread.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		origin, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("read own namespace: %w", err)
			return
		}
		defer func() { _ = origin.Close() }()
		err = f()
		if back := netns.Set(origin); back != nil {
			done <- errors.Join(err, fmt.Errorf("leave namespace: %w", back))
			return // still locked: the thread dies with the goroutine
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
