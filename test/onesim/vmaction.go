package onesim

import "time"

func vmActionMethods() []method {
	return []method{
		{name: "one.vm.action", params: "si", write: true, run: vmAction},
		{name: "one.vm.deploy", params: "ii|bis", write: true, run: vmDeploy},
		{name: "one.vm.recover", params: "ii", write: true, run: vmRecover},
	}
}

// vmActions are the actions of one.vm.action; a false answer means that the VM's state does not allow it.
var vmActions = map[string]func(*call, *vm) bool{
	"poweroff":       func(c *call, v *vm) bool { return c.powerOff(v, actionPoweroff) },
	"poweroff-hard":  func(c *call, v *vm) bool { return c.powerOff(v, actionPoweroffHard) },
	"suspend":        (*call).suspend,
	"stop":           (*call).stop,
	"undeploy":       func(c *call, v *vm) bool { return c.undeploy(v, actionUndeploy) },
	"undeploy-hard":  func(c *call, v *vm) bool { return c.undeploy(v, actionUndeployHard) },
	"resume":         (*call).resume,
	"reboot":         func(_ *call, v *vm) bool { return v.running() },
	"reboot-hard":    func(_ *call, v *vm) bool { return v.running() },
	"terminate":      func(c *call, v *vm) bool { return c.terminate(v, actionTerminate) },
	"terminate-hard": func(c *call, v *vm) bool { return c.terminate(v, actionTerminateH) },
	"hold":           func(_ *call, v *vm) bool { return v.move(statePending, stateHold) },
	"release":        (*call).releaseVM,
	"resched":        func(_ *call, v *vm) bool { return v.reschedule(true) },
	"unresched":      func(_ *call, v *vm) bool { return v.reschedule(false) },
}

func vmAction(c *call) (any, error) {
	name := c.str(0)
	op := opManage
	if name == "resched" || name == "unresched" {
		op = opAdmin
	}
	v, err := c.vmArg(1, op)
	if err != nil {
		return nil, err
	}
	run, ok := vmActions[name]
	if !ok {
		return nil, fail(CodeAction, "Action %q is not supported", name)
	}
	if !run(c, v) {
		return nil, fail(CodeAction, "Error performing action %q: This action is not available for state %s", name, v.stateName())
	}
	return v.id, nil
}

func (v *vm) move(from, to vmState) bool {
	if v.state != from {
		return false
	}
	v.state = to
	return true
}

func (v *vm) reschedule(on bool) bool {
	if !v.running() {
		return false
	}
	v.resched = on
	return true
}

// through brings a VM into a transient state, and calls end when the driver is done, if it is still in that state.
func (c *call) through(v *vm, lcm lcmState, end func(now int64)) bool {
	v.set(stateActive, lcm)
	c.later(c.opts.Delays.Power, func() {
		if v.state == stateActive && v.lcm == lcm {
			end(time.Now().Unix())
		}
	})
	return true
}

func (c *call) powerOff(v *vm, action int) bool {
	if !v.running() && !(v.state == stateActive && v.lcm == lcmUnknown) {
		return false
	}
	v.note(c, action)
	return c.through(v, lcmShutdownPoweroff, func(now int64) {
		v.lastHistory().retime = now
		v.set(statePoweroff, lcmInit)
	})
}

func (c *call) suspend(v *vm) bool {
	if !v.running() {
		return false
	}
	v.note(c, actionSuspend)
	return c.through(v, lcmSaveSuspend, func(now int64) {
		v.lastHistory().retime = now
		v.set(stateSuspended, lcmInit)
	})
}

func (c *call) stop(v *vm) bool {
	if !v.running() && v.state != stateSuspended {
		return false
	}
	v.note(c, actionStop)
	return c.through(v, lcmSaveStop, func(now int64) {
		v.left(now)
		v.set(stateStopped, lcmInit)
	})
}

func (c *call) undeploy(v *vm, action int) bool {
	if !v.running() && v.state != statePoweroff && v.state != stateSuspended {
		return false
	}
	v.note(c, action)
	return c.through(v, lcmShutdownUndeploy, func(now int64) {
		v.left(now)
		v.set(stateUndeployed, lcmInit)
	})
}

// resume boots a VM where it was, or hands it to the scheduler when it left its host.
func (c *call) resume(v *vm) bool {
	s := c.Sim
	switch v.state {
	case statePoweroff, stateSuspended:
		boot := lcmBootPoweroff
		if v.state == stateSuspended {
			boot = lcmBootSuspended
		}
		v.resumed(c.now.Unix())
		v.set(stateActive, boot)
		h := v.lastHistory().host
		s.later(s.opts.Delays.Power, func() { s.booted(v, h, boot) })
	case stateUndeployed, stateStopped:
		v.set(statePending, lcmInit)
		if !s.opts.NoScheduler {
			s.later(0, func() { s.schedule(v) })
		}
	case stateActive:
		return v.lcm == lcmUnknown && v.recovered()
	default:
		return false
	}
	return true
}

func (v *vm) recovered() bool {
	v.lcm = lcmRunning
	return true
}

func (c *call) releaseVM(v *vm) bool {
	if !v.move(stateHold, statePending) {
		return false
	}
	if s := c.Sim; !s.opts.NoScheduler {
		s.later(0, func() { s.schedule(v) })
	}
	return true
}

// terminate of a DONE VM is content.
func (c *call) terminate(v *vm, action int) bool {
	switch {
	case v.state == stateDone:
		return true
	case v.state == statePending || v.state == stateHold:
		c.finish(v)
		return true
	case v.state == stateActive && v.lcm != lcmRunning && v.lcm != lcmBootFailure && v.lcm != lcmUnknown:
		return false
	}
	v.note(c, action)
	s := c.Sim
	return c.through(v, lcmShutdown, func(now int64) {
		v.left(now)
		s.finish(v)
	})
}

func vmDeploy(c *call) (any, error) {
	v := c.vms.byID[c.int(0)]
	if v == nil {
		return nil, noExists(kindVM, c.int(0))
	}
	h := c.hosts.byID[c.int(1)]
	if h == nil {
		return nil, noExists(kindHost, c.int(1))
	}
	if err := c.authorize(needs(opAdmin, &v.object), needs(opManage, &h.object)); err != nil {
		return nil, err
	}
	switch v.state {
	case statePending, stateHold, stateStopped, stateUndeployed:
	default:
		return nil, fail(CodeAction, "deploy action is not available for state %s", v.stateName())
	}
	c.Sim.deploy(v, h, -2, -1)
	return v.id, nil
}

// Recover operations.
const (
	recoverFailure = iota
	recoverSuccess
	recoverRetry
	recoverDelete
	recoverRecreate
)

// vmRecover ends a state that a driver left a VM in: 0 failure, 1 success, 2 retry, 3 delete, 4 recreate.
func vmRecover(c *call) (any, error) {
	v, err := c.vmArg(0, opAdmin)
	if err != nil {
		return nil, err
	}
	stuck := v.state == stateActive && v.lcm != lcmRunning
	switch op := c.int(1); {
	case op < recoverFailure || op > recoverRecreate:
		return nil, fail(CodeXMLRPCAPI, "Wrong recovery operation code")
	case op == recoverDelete && v.state != stateDone:
		v.left(c.now.Unix())
		c.finish(v)
	case op == recoverRetry && v.state == stateActive && v.lcm == lcmBootFailure:
		v.lcm = lcmBoot
		h, s := v.lastHistory().host, c.Sim
		s.later(s.opts.Delays.Deploy, func() { s.booted(v, h, lcmBoot) })
	case op == recoverSuccess && stuck:
		v.lcm = lcmRunning
	case op == recoverFailure && stuck && v.lcm != lcmBootFailure:
		v.lcm = lcmBootFailure
	case op == recoverRecreate && v.state != stateDone:
		v.set(statePending, lcmInit)
		if s := c.Sim; !s.opts.NoScheduler {
			s.later(0, func() { s.schedule(v) })
		}
	default:
		return nil, fail(CodeAction, "Recover action is not available for state %s", v.stateName())
	}
	return v.id, nil
}
