package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"
)

// watchAgain is the pause before a watch that broke off begins again.
const watchAgain = 100 * time.Millisecond

// FloatingAddresses make an instance the master exactly while all of them are on
// its interfaces: keepalived puts them there and takes them away.
type FloatingAddresses []netip.Addr

// Run implements Role. It follows the kernel's events. Until the first listing works
// the role is not known; after that, it stays what it was while they cannot be read.
func (f FloatingAddresses) Run(ctx context.Context, changed func(master bool)) error {
	told := ""
	for ctx.Err() == nil {
		// A listing that other changes have interrupted is an error, too.
		if err := f.watch(ctx, changed); err != nil && !errors.Is(err, errWatchEnded) && err.Error() != told {
			told = err.Error()
			klog.FromContext(ctx).Error(err, "Cannot follow the floating addresses; trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
	return nil
}

var errWatchEnded = errors.New("the kernel ended a watch of addresses")

// watch begins with what is there, so nothing is missed between two watches.
func (f FloatingAddresses) watch(ctx context.Context, changed func(master bool)) error {
	done, updates := make(chan struct{}), make(chan netlink.AddrUpdate, 1024)
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{ReceiveBufferSize: 4 << 20, ErrorCallback: func(error) {}})
	if err != nil {
		return fmt.Errorf("watch floating addresses: %w", err)
	}
	defer func() { close(done); drain(updates) }()
	// Where each floating address is: one may be on two interfaces for a moment.
	at := map[netip.Addr]map[int]bool{}
	for _, a := range f {
		at[a] = map[int]bool{}
	}
	present, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, p := range present {
		if a, ok := netip.AddrFromSlice(p.IP); ok && at[a.Unmap()] != nil {
			at[a.Unmap()][p.LinkIndex] = true
		}
	}
	for {
		changed(f.all(at))
		for seen := false; !seen; {
			select {
			case <-ctx.Done():
				return nil
			case u, open := <-updates:
				if !open {
					return errWatchEnded
				}
				a, ok := netip.AddrFromSlice(u.LinkAddress.IP)
				if !ok || at[a.Unmap()] == nil {
					continue
				}
				seen = true
				if u.NewAddr {
					at[a.Unmap()][u.LinkIndex] = true
				} else {
					delete(at[a.Unmap()], u.LinkIndex)
				}
			}
		}
	}
}

// drain lets the library's goroutine end.
func drain(updates <-chan netlink.AddrUpdate) {
	for range updates { //nolint:revive // until it is closed
	}
}

func (f FloatingAddresses) all(at map[netip.Addr]map[int]bool) bool {
	for _, a := range f {
		if len(at[a]) == 0 {
			return false
		}
	}
	return true
}
