package instances

import (
	"strings"
	"testing"

	"github.com/onelb/onelb/provider/one"
)

const (
	uuidA = "39c23984-160c-4c31-9654-086d74de3c60"
	uuidB = "f81d4fae-7dec-41d0-a765-00a0c91e6bf6"
)

func withUUID(v one.VM, uuid string) one.VM { v.UUID = uuid; return v }

// TestSearchByUUID: the UUID comes before name and address, and a machine with
// another UUID is another machine.
func TestSearchByUUID(t *testing.T) {
	for name, c := range map[string]struct {
		vms    []one.VM
		system string // the Node's systemUUID
		ip     string
		want   int
		text   []string
	}{
		"before the name": {vms: []one.VM{withUUID(vm(1, "node-1"), uuidB), withUUID(vm(2, "x"), uuidA)}, system: uuidA, want: 2},
		"upper case":      {vms: []one.VM{withUUID(vm(2, "x"), uuidA)}, system: strings.ToUpper(uuidA), want: 2},
		"other order":     {vms: []one.VM{withUUID(vm(2, "x"), uuidA)}, system: "8439C239-0C16-314C-9654-086D74DE3C60", want: 2},
		"none reported":   {vms: []one.VM{withUUID(vm(1, "node-1"), uuidB)}, want: 1},
		"all zero":        {vms: []one.VM{withUUID(vm(1, "node-1"), uuidB)}, system: "00000000-0000-0000-0000-000000000000", want: 1},
		"no UUID in OpenNebula": {
			vms: []one.VM{vm(1, "node-1"), withUUID(vm(2, "x"), uuidB)}, system: uuidA, want: 1,
		},
		"copies, told apart by name": {
			vms: []one.VM{withUUID(vm(1, "x"), uuidA), withUUID(vm(2, "node-1"), uuidA)}, system: uuidA, want: 2,
		},
		"copies, told apart by address": {
			vms:    []one.VM{withUUID(vm(1, "x", nic(0, "a", "10.0.0.1")), uuidA), withUUID(vm(2, "y", nic(0, "a", "10.0.0.2")), uuidA)},
			system: uuidA, ip: "10.0.0.1", want: 1,
		},
		"copies": {
			vms: []one.VM{withUUID(vm(1, "x"), uuidA), withUUID(vm(2, "y"), uuidA)}, system: uuidA, text: []string{"UUID", "VM 1", "VM 2"},
		},
		"both orders": {
			vms:    []one.VM{withUUID(vm(1, "x"), uuidA), withUUID(vm(2, "y"), "8439c239-0c16-314c-9654-086d74de3c60")},
			system: uuidA, text: []string{"UUID", "VM 1", "VM 2"},
		},
		"another's name": {
			vms: []one.VM{withUUID(vm(1, "node-1"), uuidB)}, system: uuidA, text: []string{"VM 1", "its name", uuidA, uuidB, "--provider-id=one://1"},
		},
		"another's address": {
			vms: []one.VM{withUUID(vm(1, "x", nic(0, "a", "10.0.0.1")), uuidB)}, system: uuidA, ip: "10.0.0.1", text: []string{"its address", uuidA, uuidB},
		},
		"a container shows its host's": {
			vms: []one.VM{withUUID(vm(1, "node-1", nic(0, "a", "10.0.0.1")), uuidB)}, system: uuidA, ip: "10.0.0.1", want: 1,
		},
		"nothing": {vms: []one.VM{withUUID(vm(1, "x"), uuidB)}, system: uuidA, text: []string{uuidA}},
	} {
		n := node("node-1", "", c.ip)
		n.Status.NodeInfo.SystemUUID = c.system
		got, err := (&fake{list: c.vms}).instances(t, Options{}).find(t.Context(), n)
		if c.text == nil && (err != nil || got.ID != c.want) {
			t.Errorf("%s: VM %d, %v", name, got.ID, err)
		}
		for _, part := range c.text {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is missing in %v", name, part, err)
			}
		}
	}
}

func FuzzParseUUID(f *testing.F) {
	for _, s := range []string{uuidA, strings.ToUpper(uuidB), "", "-", "0", strings.Repeat("f", 32)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, ok := parseUUID(s)
		if ok && (u.swapped().swapped() != u || !u.same(u.swapped()) || !u.same(u)) {
			t.Errorf("%q became %x", s, u)
		}
	})
}

// TestStateRules: there is a rule for each state that OpenNebula has, and none for others.
func TestStateRules(t *testing.T) {
	for _, s := range one.VMStates() {
		if _, ok := vmRules[s]; ok == (s == one.VMActive) {
			t.Errorf("state %s: rule %v", s, ok)
		}
	}
	named := map[string]bool{}
	for _, s := range one.LCMStates() {
		named[s.String()] = true
		if _, ok := lcmRules[s.String()]; !ok {
			t.Errorf("LCM state %s has no rule", s)
		}
	}
	for name := range lcmRules {
		if !named[name] {
			t.Errorf("OpenNebula has no LCM state %s", name)
		}
	}
	if len(named) < 65 {
		t.Errorf("only %d LCM states", len(named))
	}
	for _, r := range StateRules() {
		if r.State == "" || r.Reason == "" || r.Exists == (r.State == "DONE") || r.Shutdown && !r.Exists {
			t.Errorf("%+v", r)
		}
	}
}
