package onesim

import "slices"

func nicMethods() []method {
	return []method{
		{name: "one.vm.attachnic", params: "is", write: true, run: vmAttachNIC},
		{name: "one.vm.detachnic", params: "ii", write: true, run: vmDetachNIC},
		{name: "one.vm.updatenic", params: "iis|i", write: true, run: vmUpdateNIC},
	}
}

var errRouterVM = fail(CodeAction, "Action is not supported for virtual router VMs")

func (c *call) restrictedNIC(t *template) error {
	if c.admin() {
		return nil
	}
	if name := c.restricted("VM_RESTRICTED_ATTR", t); name != "" {
		return fail(CodeAuthorization, "User [%d] : NIC includes a restricted attribute %s.", c.user.id, name)
	}
	return nil
}

// vmAttachNIC answers before the driver does: the VM is in HOTPLUG_NIC until then, and "ok" proves nothing.
func vmAttachNIC(c *call) (any, error) {
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, err
	}
	v, err := c.vmArg(0, opManage, c.netNeeds(t)...)
	if err != nil {
		return nil, err
	}
	if err := c.restrictedNIC(t); err != nil {
		return nil, err
	}
	if v.vrouter >= 0 {
		return nil, errRouterVM
	}
	list := append(t.vectors("NIC"), t.vectors("NIC_ALIAS")...)
	if len(list) == 0 {
		return nil, fail(CodeAction, "Wrong format or missing NIC/NIC_ALIAS/PCI attribute")
	}
	return v.id, c.attach(v, list[0], list[0].name == "NIC_ALIAS")
}

func (c *call) attach(v *vm, a *attribute, alias bool) error {
	if !v.running() && v.state != statePoweroff {
		return fail(CodeAction, "Could not add a new NIC to VM %d, wrong state %s.", v.id, v.stateName())
	}
	n, err := c.addNIC(v, a, alias)
	if err != nil {
		return err
	}
	v.hotplugged(c, attachAction(alias))
	if v.state == statePoweroff {
		n.unbooted = true
		return nil
	}
	n.state = nicAttaching
	v.set(stateActive, lcmHotplugNIC)
	s := c.Sim
	s.later(s.opts.Delays.Hotplug, func() {
		if !v.endHotplug() {
			return
		}
		n.state = nicReady
		if s.driverFails("attachnic", v.id) {
			s.removeNIC(v, n)
		}
	})
	return nil
}

func attachAction(alias bool) int {
	if alias {
		return actionAliasAttach
	}
	return actionNICAttach
}

// endHotplug brings a VM back to RUNNING, unless it has gone somewhere else meanwhile.
func (v *vm) endHotplug() bool {
	if v.state != stateActive || v.lcm != lcmHotplugNIC {
		return false
	}
	v.lcm = lcmRunning
	return true
}

func vmDetachNIC(c *call) (any, error) {
	v, err := c.vmArg(0, opManage)
	if err != nil {
		return nil, err
	}
	if v.vrouter >= 0 {
		return nil, errRouterVM
	}
	return v.id, c.detach(v, c.int(1))
}

func (c *call) detach(v *vm, id int) error {
	if !v.running() && v.state != statePoweroff {
		return fail(CodeAction, "Could not detach NIC from VM %d, wrong state %s.", v.id, v.stateName())
	}
	n := v.nic(id)
	if n == nil {
		return fail(CodeAction, "Could not detach NIC with NIC_ID %d, it does not exist.", id)
	}
	action := actionNICDetach
	if n.alias {
		action = actionAliasDetach
	}
	v.hotplugged(c, action)
	if v.state == statePoweroff {
		c.removeNIC(v, n)
		return nil
	}
	n.state = nicDetaching
	v.set(stateActive, lcmHotplugNIC)
	s := c.Sim
	s.later(s.opts.Delays.Hotplug, func() {
		if !v.endHotplug() {
			return
		}
		n.state = nicReady
		if !s.driverFails("detachnic", v.id) {
			s.removeNIC(v, n)
		}
	})
	return nil
}

// vmUpdateNIC changes attributes of a NIC that do not touch its lease.
func vmUpdateNIC(c *call) (any, error) {
	t, err := parseTemplate(c.str(2))
	if err != nil {
		return nil, err
	}
	v, err := c.vmArg(0, opManage)
	if err != nil {
		return nil, err
	}
	if err := c.restrictedNIC(t); err != nil {
		return nil, err
	}
	n := v.nic(c.int(1))
	list := t.vectors("NIC")
	switch {
	case n == nil:
		return nil, fail(CodeAction, "NIC with NIC_ID %d does not exist.", c.int(1))
	case len(list) == 0:
		return nil, fail(CodeAction, "Wrong format or missing NIC attribute")
	case !v.running() && v.state != statePoweroff:
		return nil, fail(CodeAction, "Could not update NIC of VM %d, wrong state %s.", v.id, v.stateName())
	}
	fixed := []string{"IP", "IP6", "MAC", "NETWORK", "NETWORK_ID", "NIC_ID", "AR_ID", "NAME", "TARGET"}
	for _, p := range list[0].pairs {
		if slices.Contains(fixed, p.key) {
			return nil, fail(CodeAction, "NIC attribute %s cannot be updated", p.key)
		}
		n.attrs.set(p.key, p.value)
	}
	return v.id, nil
}
