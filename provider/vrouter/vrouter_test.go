package vrouter

import (
	"strings"
	"testing"

	"github.com/onelb/onelb/provider/one"
)

// TestStates: only what OpenNebula changes the context of is ready, and nothing that
// ends by itself is given up.
func TestStates(t *testing.T) {
	for _, s := range one.VMStates() {
		vm := one.Contextualized{VM: one.VM{ID: 7, State: s}}
		for _, l := range one.LCMStates() {
			vm.LCMState = l
			m := machine(vm)
			kinds := 0
			for _, is := range []bool{m.Ready, m.Busy, m.Gone} {
				if is {
					kinds++
				}
			}
			if kinds > 1 {
				t.Errorf("%s/%s: %+v", s, l, m)
			}
			if runs := s == one.VMActive || s == one.VMCloning || s == one.VMDone; m.Off == runs {
				t.Errorf("%s/%s: %+v", s, l, m)
			}
			if s != one.VMActive {
				continue
			}
			failed := l == one.LCMUnknown || strings.HasSuffix(l.String(), "_FAILURE")
			if m.State != l.String() || m.Ready != (l == one.LCMRunning) || m.Busy != (l != one.LCMRunning && !failed) {
				t.Errorf("%s: %+v", l, m)
			}
		}
	}
	for s, want := range map[one.VMState]string{
		one.VMPowerOff: "ready", one.VMHold: "ready", one.VMPending: "ready", one.VMUndeployed: "ready",
		one.VMSuspended: "", one.VMStopped: "", one.VMDone: "gone", one.VMCloning: "busy",
	} {
		m := machine(one.Contextualized{VM: one.VM{State: s}})
		got := map[bool]string{m.Ready: "ready"}[true] + map[bool]string{m.Busy: "busy"}[true] + map[bool]string{m.Gone: "gone"}[true]
		if got != want {
			t.Errorf("%s is %q, want %q", s, got, want)
		}
	}
}
