package onesim

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
)

// vmState is a VM's STATE.
type vmState int

const (
	stateInit       vmState = 0
	statePending    vmState = 1
	stateHold       vmState = 2
	stateActive     vmState = 3
	stateStopped    vmState = 4
	stateSuspended  vmState = 5
	stateDone       vmState = 6
	statePoweroff   vmState = 8
	stateUndeployed vmState = 9
)

// lcmState is a VM's LCM_STATE, which counts while it is ACTIVE.
type lcmState int

const (
	lcmInit             lcmState = 0
	lcmProlog           lcmState = 1
	lcmBoot             lcmState = 2
	lcmRunning          lcmState = 3
	lcmSaveStop         lcmState = 5
	lcmSaveSuspend      lcmState = 6
	lcmShutdown         lcmState = 12
	lcmUnknown          lcmState = 16
	lcmHotplug          lcmState = 17
	lcmShutdownPoweroff lcmState = 18
	lcmBootPoweroff     lcmState = 20
	lcmBootSuspended    lcmState = 21
	lcmHotplugNIC       lcmState = 25
	lcmShutdownUndeploy lcmState = 29
	lcmBootFailure      lcmState = 36
)

var (
	stateNames = map[vmState]string{
		stateInit: "INIT", statePending: "PENDING", stateHold: "HOLD", stateActive: "ACTIVE", stateStopped: "STOPPED",
		stateSuspended: "SUSPENDED", stateDone: "DONE", statePoweroff: "POWEROFF", stateUndeployed: "UNDEPLOYED",
	}
	lcmNames = map[lcmState]string{
		lcmInit: "LCM_INIT", lcmProlog: "PROLOG", lcmBoot: "BOOT", lcmRunning: "RUNNING", lcmSaveStop: "SAVE_STOP",
		lcmSaveSuspend: "SAVE_SUSPEND", lcmShutdown: "SHUTDOWN", lcmUnknown: "UNKNOWN", lcmHotplug: "HOTPLUG",
		lcmShutdownPoweroff: "SHUTDOWN_POWEROFF", lcmBootPoweroff: "BOOT_POWEROFF", lcmBootSuspended: "BOOT_SUSPENDED",
		lcmHotplugNIC: "HOTPLUG_NIC", lcmShutdownUndeploy: "SHUTDOWN_UNDEPLOY", lcmBootFailure: "BOOT_FAILURE",
	}
)

// vm is a virtual machine.
type vm struct {
	object
	state        vmState
	lcm          lcmState
	started      int64
	ended        int64
	resched      bool
	deployID     string
	template     *template // without NIC, NIC_ALIAS and CONTEXT, which are made from the fields below
	userTemplate *template
	nics         []*nic // aliases among them, in the order they came
	context      *attribute
	history      []history
	vrouter      int // -1 unless a virtual router's VM
}

// stateName is what oned calls the state in error texts.
func (v *vm) stateName() string {
	if v.state == stateActive {
		return lcmNames[v.lcm]
	}
	return stateNames[v.state]
}

func (v *vm) running() bool { return v.state == stateActive && v.lcm == lcmRunning }

func (v *vm) set(state vmState, lcm lcmState) { v.state, v.lcm = state, lcm }

// vmAttrs are the attributes that belong to a VM's TEMPLATE; all others go to its USER_TEMPLATE.
var vmAttrs = []string{
	"CPU", "MEMORY", "VCPU", "DISK", "OS", "GRAPHICS", "FEATURES", "INPUT", "RAW", "PCI", "CPU_MODEL", "TOPOLOGY", "VIDEO",
	"TPM", "TEMPLATE_ID", "SUBMIT_ON_HOLD", "VROUTER_ID", "VROUTER_KEEPALIVED_ID", "CREATED_BY",
}

// newVM makes a VM, with the leases of its NICs, in PENDING or HOLD. Nothing is left of it on failure.
func (s *Sim) newVM(owner *user, gid int, name string, t *template, hold bool, vr *vrouter) (*vm, error) {
	v := &vm{
		object:   object{kind: kindVM, id: s.vms.take(), uid: owner.id, gid: gid, perms: defaultPerms, name: name},
		started:  time.Now().Unix(),
		template: &template{}, userTemplate: &template{}, vrouter: -1, state: statePending,
	}
	if vr != nil {
		v.vrouter = vr.id
	}
	if v.name == "" {
		v.name = "one-" + itoa(v.id)
	}
	nics, aliases := t.take("NIC"), t.take("NIC_ALIAS")
	if contexts := t.take("CONTEXT"); len(contexts) > 0 && contexts[len(contexts)-1].vector {
		v.context = &contexts[len(contexts)-1]
		resolveUserVars(v.context, owner)
	}
	s.fillTemplates(v, owner, t, len(nics) > 0, hold)
	for _, a := range append(nics, aliases...) {
		if _, err := s.addNIC(v, &a, a.name == "NIC_ALIAS"); err != nil {
			s.freeNICs(v)
			return nil, err
		}
	}
	if hold {
		v.state = stateHold
	}
	s.vms.insert(v)
	if !hold && !s.opts.NoScheduler {
		s.later(0, func() { s.schedule(v) })
	}
	return v, nil
}

func (s *Sim) fillTemplates(v *vm, owner *user, t *template, withNICs, hold bool) {
	for i := range t.attrs {
		if slices.Contains(vmAttrs, t.attrs[i].name) {
			v.template.add(t.attrs[i].clone())
		} else {
			v.userTemplate.add(t.attrs[i].clone())
		}
	}
	v.template.set("AUTOMATIC_DS_REQUIREMENTS", `("CLUSTERS/ID" @> 0)`)
	v.template.set("AUTOMATIC_REQUIREMENTS", "(CLUSTER_ID = 0) & !(PIN_POLICY = PINNED)")
	if withNICs {
		v.template.set("AUTOMATIC_NIC_REQUIREMENTS", `("CLUSTERS/ID" @> 0)`)
	}
	v.template.set("VMID", itoa(v.id))
	if owner.id == 0 {
		v.template.set("CREATED_BY", "0")
	}
	if hold {
		v.template.set("SUBMIT_ON_HOLD", "YES")
	}
	if !v.template.has("OS") {
		v.template.add(newVector("OS", "UUID", newUUID()))
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// resolveUserVars replaces $USER[NAME] by the attribute of the user's template.
func resolveUserVars(context *attribute, owner *user) {
	for i, p := range context.pairs {
		if name, ok := strings.CutPrefix(p.value, "$USER["); ok && strings.HasSuffix(name, "]") {
			context.pairs[i].value = owner.template.get(strings.TrimSuffix(name, "]"))
		}
	}
}

// schedule is what the scheduler does with a pending VM.
func (s *Sim) schedule(v *vm) {
	if v.state != statePending || len(s.hosts.byID) == 0 {
		return
	}
	s.deploy(v, s.hosts.byID[s.hosts.sorted()[0]], -1, 0)
}

// deploy brings a VM to a host. It is RUNNING, or in BOOT_FAILURE, when the driver answers.
func (s *Sim) deploy(v *vm, h *host, plan, action int) {
	v.set(stateActive, lcmProlog)
	v.openHistory(h, plan, action)
	r := v.lastHistory()
	r.pstime, r.petime, r.rstime = r.stime, r.stime, r.stime
	v.template.set("TM_MAD_SYSTEM", "dummy")
	s.later(s.opts.Delays.Deploy, func() { s.booted(v, h, lcmProlog) })
}

// booted is the driver's answer to a boot that began in the given state.
func (s *Sim) booted(v *vm, h *host, from lcmState) {
	if v.state != stateActive || v.lcm != from {
		return
	}
	id := h.name + ":" + v.name + ":" + h.vmMAD
	if s.driverFails("deploy", v.id) {
		v.set(stateActive, lcmBootFailure)
		v.deployID = ""
		v.lastHistory().retime = time.Now().Unix()
		v.userTemplate.set("ERROR", time.Now().Format(time.ANSIC)+": DEPLOY: "+id)
		return
	}
	v.deployID = id
	v.set(stateActive, lcmRunning)
	for _, n := range v.nics {
		n.unbooted = false
	}
}

// finish frees what a VM has and makes it DONE.
func (s *Sim) finish(v *vm) {
	s.freeNICs(v)
	v.set(stateDone, lcmInit)
	v.ended = time.Now().Unix()
	if vr := s.vrouters.byID[v.vrouter]; vr != nil {
		vr.vms = slices.DeleteFunc(vr.vms, func(id int) bool { return id == v.id })
	}
}

func (c *call) vmArg(i int, op operation, more ...need) (*vm, error) {
	v := c.vms.byID[c.int(i)]
	if v == nil {
		return nil, noExists(kindVM, c.int(i))
	}
	return v, c.authorize(append([]need{needs(op, &v.object)}, more...)...)
}

func vmMethods() []method {
	return []method{
		{name: "one.vm.allocate", params: "s|b", write: true, run: vmAllocate},
		{name: "one.vm.info", params: "i|b", run: vmInfo},
		{name: "one.vm.monitoring", params: "i", run: vmMonitoring},
		{name: "one.vm.update", params: "is|i", write: true, run: vmUpdate},
		{name: "one.vm.updateconf", params: "is|i", write: true, run: vmUpdateConf},
	}
}

func vmAllocate(c *call) (any, error) {
	t, err := parseTemplate(c.str(0))
	if err != nil {
		return nil, err
	}
	if err := c.authorize(append([]need{creates(kindVM)}, c.netNeeds(t)...)...); err != nil {
		return nil, err
	}
	name := t.get("NAME")
	t.del("NAME")
	v, err := c.newVM(c.user, c.groups[0], name, t, c.bool(1), nil)
	if err != nil {
		return nil, withCode(err, CodeAllocate)
	}
	return v.id, nil
}

// withCode gives an error the code of the call it happens in; missing rights keep theirs.
func withCode(err error, code Code) error {
	e, ok := err.(*Error) //nolint:errorlint // methods return *Error itself
	if !ok || e.Code == CodeAuthorization {
		return err
	}
	return fail(code, "%s", e.Message)
}

func vmInfo(c *call) (any, error) {
	v := c.vms.byID[c.int(0)]
	if v == nil {
		return nil, noExists(kindVM, c.int(0))
	}
	if err := c.read(&v.object); err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeVM(&b, v, true)
	return b.String(), nil
}

func vmMonitoring(c *call) (any, error) {
	v := c.vms.byID[c.int(0)]
	if v == nil {
		return nil, noExists(kindVM, c.int(0))
	}
	if err := c.read(&v.object); err != nil {
		return nil, err
	}
	var b xmlOut
	b.open("MONITORING_DATA")
	if v.running() {
		b.vector("MONITORING", v.monitoring())
	}
	b.close("MONITORING_DATA")
	return b.String(), nil
}

func vmUpdate(c *call) (any, error) {
	v, err := c.vmArg(0, opManage)
	if err != nil {
		return nil, err
	}
	t, err := c.updated(v.userTemplate, c.str(1), c.int(2), "VM_RESTRICTED_ATTR")
	if err != nil {
		return nil, err
	}
	v.userTemplate = t
	return v.id, nil
}
