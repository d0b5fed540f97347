package onesim

import (
	"slices"
	"strconv"
	"strings"
)

// State filters of the VM pool; 0 and above is one state.
const (
	vmAnyWithDone = -2
	vmAnyButDone  = -1
)

func vmPoolMethods() []method {
	return []method{
		{name: "one.vmpool.info", params: "iii|is", run: func(c *call) (any, error) {
			return vmPool(c, c.writeShortVM)
		}},
		{name: "one.vmpool.infoextended", params: "iii|is", run: func(c *call) (any, error) {
			return vmPool(c, func(b *xmlOut, v *vm) { c.writeVM(b, v, false) })
		}},
		{name: "one.vmpool.infoset", params: "s|b", run: vmPoolSet},
	}
}

func vmPool(c *call, write func(*xmlOut, *vm)) (any, error) {
	state := c.intOr(3, vmAnyButDone)
	if c.str(4) != "" {
		return nil, fail(CodeInternal, "JSON query search is not supported by the SQL backend")
	}
	if state < vmAnyWithDone || state > 11 {
		return nil, fail(CodeXMLRPCAPI, "Incorrect filter_flag, state")
	}
	want := func(v *vm) bool {
		switch state {
		case vmAnyWithDone:
			return true
		case vmAnyButDone:
			return v.state != stateDone
		}
		return int(v.state) == state
	}
	return poolInfo(c, "VM_POOL", &c.vms, want, write)
}

// vmPoolSet shows the VMs of a list of ids that exist and may be used.
func vmPoolSet(c *call) (any, error) {
	wanted := map[int]bool{}
	for text := range strings.SplitSeq(c.str(0), ",") {
		id, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, fail(CodeXMLRPCAPI, "Can't parse ids %q", c.str(0))
		}
		wanted[id] = true
	}
	var b xmlOut
	b.open("VM_POOL")
	ids := c.vms.sorted()
	for _, v := range slices.Backward(ids) {
		v := c.vms.byID[v]
		if !wanted[v.id] || !c.may(opUse, &v.object) {
			continue
		}
		if c.bool(1) {
			c.writeVM(&b, v, false)
		} else {
			c.writeShortVM(&b, v)
		}
	}
	b.close("VM_POOL")
	return b.String(), nil
}
