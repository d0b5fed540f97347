package one

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
)

// TestRecordedErrors has the messages of a real front-end.
func TestRecordedErrors(t *testing.T) {
	sentinels := []error{
		ipam.ErrNotFound, ipam.ErrExists, ipam.ErrNoSpace, ipam.ErrInUse, ipam.ErrNotReady,
		ipam.ErrDenied, ipam.ErrUnauthenticated, ipam.ErrUnavailable,
	}
	for _, c := range []struct {
		code int
		text string
		want error // nil: none of the sentinels
	}{
		{0x0100, "[one.vn.info] User couldn't be authenticated, aborting call.", ipam.ErrUnauthenticated},
		{0x0400, "[one.vn.info] Error getting virtual network [4711].", ipam.ErrNotFound},
		{0x0400, "[one.vn.info] Error getting virtual network Pool.", ipam.ErrNotFound},
		{0x2000, "[one.vn.hold] Address is not part of the address range or in use.", ipam.ErrInUse},
		{0x2000, "[one.vn.hold] Empty lease description.", nil},
		{0x2000, "[one.vn.hold] Parse error: syntax error, unexpected $end, expecting STRING at line 0, columns 14:15", nil},
		{0x0800, "[one.vn.hold] Could not execute one.vn.holdVirtual Network is in wrong state: LOCK_CREATE", ipam.ErrNotReady},
		{0x0200, "[one.vn.hold] User [2] : Not authorized to perform MANAGE NET [1].", ipam.ErrDenied},
		{0x0200, "[one.vn.hold] User [0] : NET is locked. [23].", ipam.ErrDenied},
		{0x0800, "[one.vn.release] Could not execute one.vn.releaseVirtual Network is in wrong state: LOCK_CREATE", ipam.ErrNotReady},
		{0x2000, "[one.vn.reserve] NAME is already taken by NET 8.", ipam.ErrExists},
		{0x0800, "[one.vn.reserve] Not enough free addresses in address range 0, or it does not exist", ipam.ErrNoSpace},
		{0x0800, "[one.vn.reserve] Not enough free addresses in an address range", ipam.ErrNoSpace},
		{0x0800, "[one.vn.reserve] Cannot add reservations to a non-reservation VNET", nil},
		{0x0800, "[one.vn.reserve] New reservations for virtual network 8 have to be from network 1", nil},
		{0x0200, "[one.vn.reserve] User [3] : user [3] limit of 2 reached for LEASES quota in NETWORK with ID: 1.", ipam.ErrDenied},
		{0x2000, "[one.vn.free_ar] Address Range has leases in use", ipam.ErrInUse},
		{0x2000, "[one.vn.free_ar] Address Range does not exist", ipam.ErrNotFound},
		{0x0800, "[one.vn.delete] Cannot delete virtual network. Can not remove a virtual network with leases in use", ipam.ErrInUse},
		{0x2000, "[one.vn.update] Cannot update template. User Template includes a restricted attribute BRIDGE", ipam.ErrDenied},
		{0x0800, "[one.vm.attachnic] Cannot get IP/MAC lease from virtual network 8.", ipam.ErrInUse},
		{0x0800, "[one.vm.attachnic] Could not add a new NIC to VM 0, wrong state HOTPLUG_NIC.", ipam.ErrNotReady},
		{0x0800, "[one.vm.attachnic] Alias not found.", ipam.ErrNotFound},
		{0x0800, "[one.vm.attachnic] Action is not supported for virtual router VMs", nil},
		{0x0200, "[one.vm.attachnic] User [3] : Not authorized to perform MANAGE VM [0].", ipam.ErrDenied},
		{0x0400, "[one.vm.attachnic] Error getting virtual machine [4711].", ipam.ErrNotFound},
		{0x0800, "[one.vm.detachnic] Could not detach NIC from VM 1, wrong state HOTPLUG_NIC.", ipam.ErrNotReady},
		{0x0800, "[one.vm.detachnic] Could not detach NIC with NIC_ID 77, it does not exist.", ipam.ErrNotFound},
		{0x1000, "[one.vn.update] Wrong update type", nil},
		{0x8000, "[one.vn.update] locked", ipam.ErrDenied},
		{0x4242, "[one.vn.update] a code of a later release", nil},
	} {
		method := strings.TrimPrefix(strings.Split(c.text, "]")[0], "[")
		f := newFrontEnd(t, func(request) string { return failure(c.code, c.text) })
		_, err := f.client(Options{}).callText(context.Background(), method)
		for _, s := range sentinels {
			if got := errors.Is(err, s); got != errors.Is(c.want, s) {
				t.Errorf("%s: errors.Is(%q) is %v", c.text, s, got)
			}
		}
		if err == nil || strings.Count(err.Error(), method) < 1 || strings.Contains(err.Error(), "secret123") ||
			!strings.Contains(err.Error(), strings.SplitN(c.text, "] ", 2)[1]) || !strings.Contains(err.Error(), f.server.URL) {
			t.Errorf("%s: text is %q", c.text, err)
		}
	}
}
