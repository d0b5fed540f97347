package onesim

import (
	"fmt"
	"strings"
)

// ethVars are the context variables of a NIC, ETHn_<name>, and where their value comes from: an attribute of the
// network's template or of the NIC.
var ethVars = []struct{ name, net, nic string }{
	{name: "DNS", net: "DNS"},
	{name: "EXTERNAL", nic: "EXTERNAL"},
	{name: "GATEWAY", net: "GATEWAY"},
	{name: "IP", nic: "IP"},
	{name: "IP6", nic: "IP6"},
	{name: "IP6_GATEWAY", net: "IP6_GATEWAY"},
	{name: "IP6_METHOD", net: "IP6_METHOD"},
	{name: "IP6_METRIC", net: "IP6_METRIC"},
	{name: "IP6_PREFIX_LENGTH"},
	{name: "IP6_ULA", nic: "IP6_ULA"},
	{name: "MAC", nic: "MAC"},
	{name: "MASK", net: "NETWORK_MASK"},
	{name: "METHOD", net: "METHOD"},
	{name: "METRIC", net: "METRIC"},
	{name: "MTU", net: "MTU"},
	{name: "NETWORK", net: "NETWORK_ADDRESS"},
	{name: "ROUTES", net: "ROUTES"},
	{name: "SEARCH_DOMAIN", net: "SEARCH_DOMAIN"},
	{name: "VLAN_ID", net: "VLAN_ID"},
	{name: "VROUTER_IP", nic: "VROUTER_IP"},
	{name: "VROUTER_IP6", nic: "VROUTER_IP6_GLOBAL"},
	{name: "VROUTER_MANAGEMENT", nic: "VROUTER_MANAGEMENT"},
}

// networkContext are the values of a NIC's variables, taken when the NIC is made: a later change of the network is
// not seen by the VM.
func networkContext(v *vnet, ar *addrRange, nic *attribute) []pair {
	out := make([]pair, 0, len(ethVars))
	for _, e := range ethVars {
		value := ""
		switch {
		case e.net != "":
			value = v.template.get(e.net)
		case e.nic != "":
			value = nic.get(e.nic)
		}
		switch {
		case e.name == "IP6" && value == "":
			value = nic.get("IP6_GLOBAL")
		case e.name == "IP6_PREFIX_LENGTH" && ar != nil:
			for _, p := range ar.prefixes {
				if p.key == "PREFIX_LENGTH" {
					value = p.value
				}
			}
		}
		out = append(out, pair{e.name, value})
	}
	return out
}

// contextOf is the CONTEXT of a VM. A NIC whose attach has not ended, or that waits for a
// boot, is not in it yet.
func (s *Sim) contextOf(v *vm) attribute {
	out := v.context.clone()
	out.set("DISK_ID", itoa(len(v.template.vectors("DISK"))))
	out.set("TARGET", "hda")
	if strings.EqualFold(out.get("TOKEN"), "YES") {
		out.set("VMID", itoa(v.id))
		out.set("ONEGATE_ENDPOINT", s.config.get("ONEGATE_ENDPOINT"))
	}
	if v.vrouter >= 0 {
		out.set("VROUTER_ID", v.template.get("VROUTER_ID"))
		out.set("VROUTER_KEEPALIVED_ID", v.template.get("VROUTER_KEEPALIVED_ID"))
	}
	if !strings.EqualFold(out.get("NETWORK"), "YES") {
		return out
	}
	for _, n := range v.nics {
		if n.state == nicAttaching || n.unbooted {
			continue
		}
		prefix := fmt.Sprintf("ETH%d_", n.id)
		if n.alias {
			prefix = fmt.Sprintf("ETH%d_ALIAS%d_", n.parentID, n.aliasID)
		}
		for _, p := range n.eth {
			out.set(prefix+p.key, p.value)
		}
	}
	return out
}

// confAttrs are the sections that updateconf replaces.
var confAttrs = []string{"OS", "FEATURES", "INPUT", "GRAPHICS", "VIDEO", "RAW", "CPU_MODEL", "TPM"}

// vmUpdateConf changes the configuration of a VM: a replace drops the sections that are not given.
func vmUpdateConf(c *call) (any, error) {
	v, err := c.vmArg(0, opManage)
	if err != nil {
		return nil, err
	}
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, err
	}
	if !c.admin() {
		if name := c.restricted("VM_RESTRICTED_ATTR", t); name != "" {
			return nil, fail(CodeAuthorization, "User [%d] : Template includes a restricted attribute %s.", c.user.id, name)
		}
	}
	if v.state == stateDone || v.state == stateActive && v.lcm != lcmRunning && v.lcm != lcmBootFailure {
		return nil, fail(CodeAction, "configuration cannot be updated in state %s", v.stateName())
	}
	replace := c.int(2) == updateReplace
	for _, name := range confAttrs {
		given := t.take(name)
		if replace || len(given) > 0 {
			v.template.del(name)
		}
		for _, a := range given {
			v.template.add(a)
		}
	}
	if err := v.updateContext(t, replace); err != nil {
		return nil, err
	}
	if v.running() {
		v.set(stateActive, lcmHotplug)
		c.later(c.opts.Delays.Context, func() {
			if v.state == stateActive && v.lcm == lcmHotplug {
				v.lcm = lcmRunning
			}
		})
	}
	return v.id, nil
}

func (v *vm) updateContext(t *template, replace bool) error {
	given := t.vectors("CONTEXT")
	if len(given) == 0 {
		return nil
	}
	if v.context == nil {
		return fail(CodeInternal, "Virtual machine does not have context, cannot add a new one.")
	}
	if replace {
		fresh := given[0].clone()
		v.context = &fresh
		return nil
	}
	for _, p := range given[0].pairs {
		v.context.set(p.key, p.value)
	}
	return nil
}
