package instances

import "github.com/onelb/onelb/provider/one"

// StateRule is what a state of a machine means for its Node.
type StateRule struct {
	State string // OpenNebula's name; of the life cycle if LCM
	LCM   bool   // it is an LCM_STATE of an ACTIVE machine
	// Exists: the Node stays. It goes only after a fresh read of the machine.
	Exists bool
	// Shutdown: no process runs the machine, so that its volumes may be attached
	// elsewhere. It is said only where OpenNebula is sure of it.
	Shutdown bool
	// Reason says why.
	Reason string
}

// vmRules has a rule for each state but ACTIVE, whose machines are told apart by lcmRules.
var vmRules = map[one.VMState]StateRule{
	one.VMInit:           {Exists: true, Shutdown: true, Reason: "it is being made and was never started"},
	one.VMPending:        {Exists: true, Shutdown: true, Reason: "it waits for a host"},
	one.VMHold:           {Exists: true, Shutdown: true, Reason: "its owner keeps it from being scheduled"},
	one.VMStopped:        {Exists: true, Shutdown: true, Reason: "its memory and disks are saved in the datastore; no host has it"},
	one.VMSuspended:      {Exists: true, Shutdown: true, Reason: "its memory is saved on the host's disk"},
	one.VMPowerOff:       {Exists: true, Shutdown: true, Reason: "it is shut down and keeps its host"},
	one.VMUndeployed:     {Exists: true, Shutdown: true, Reason: "it is shut down; its disks are in the datastore"},
	one.VMCloning:        {Exists: true, Shutdown: true, Reason: "its images are being copied; it was never started"},
	one.VMCloningFailure: {Exists: true, Shutdown: true, Reason: "its images could not be copied; it was never started"},
	one.VMDone:           {Reason: "it was terminated and never comes back; the proof that its Node may go"},
}

// Reasons that states of ACTIVE machines share.
const (
	running  = "its process runs"
	starting = "its process is about to start, or has just started"
	stopping = "its process may still run"
	moving   = "it runs on one of two hosts, or is about to"
	failed   = "an operator, or oned by itself, may go on with it at any moment; whether a process is left on the host is not known"
	off      = "it is off, and so are all states from which OpenNebula allows this"
)

// lcmRules has a rule for each LCM_STATE, by name.
var lcmRules = makeLCMRules([]lcmGroup{
	{reason: running, states: []string{
		"RUNNING", "HOTPLUG", "HOTPLUG_NIC", "HOTPLUG_RESIZE", "HOTPLUG_SAVEAS", "HOTPLUG_SNAPSHOT", "DISK_SNAPSHOT",
		"DISK_SNAPSHOT_DELETE", "DISK_RESIZE", "BACKUP",
	}},
	{reason: starting, states: []string{
		"LCM_INIT", "PROLOG", "PROLOG_RESUME", "PROLOG_UNDEPLOY", "BOOT", "BOOT_UNKNOWN", "BOOT_POWEROFF", "BOOT_SUSPENDED",
		"BOOT_STOPPED", "BOOT_UNDEPLOY", "CLEANUP_RESUBMIT",
	}},
	{reason: stopping, states: []string{
		"SHUTDOWN", "SHUTDOWN_POWEROFF", "SHUTDOWN_UNDEPLOY", "SAVE_STOP", "SAVE_SUSPEND", "EPILOG", "EPILOG_STOP",
		"EPILOG_UNDEPLOY", "CLEANUP_DELETE",
	}},
	{reason: moving, states: []string{"MIGRATE", "SAVE_MIGRATE", "PROLOG_MIGRATE", "PROLOG_MIGRATE_UNKNOWN", "BOOT_MIGRATE"}},
	{reason: "its host, or the monitoring of it, does not answer: the machine may well run", states: []string{"UNKNOWN"}},
	{reason: failed, states: []string{
		"BOOT_FAILURE", "BOOT_MIGRATE_FAILURE", "BOOT_UNDEPLOY_FAILURE", "BOOT_STOPPED_FAILURE", "PROLOG_FAILURE",
		"PROLOG_MIGRATE_FAILURE", "PROLOG_MIGRATE_UNKNOWN_FAILURE", "PROLOG_RESUME_FAILURE", "PROLOG_UNDEPLOY_FAILURE",
		"EPILOG_FAILURE", "EPILOG_STOP_FAILURE", "EPILOG_UNDEPLOY_FAILURE",
	}},
	{reason: off, shutdown: true, states: []string{
		"HOTPLUG_SAVEAS_POWEROFF", "HOTPLUG_SAVEAS_SUSPENDED", "HOTPLUG_SAVEAS_UNDEPLOYED", "HOTPLUG_SAVEAS_STOPPED",
		"HOTPLUG_PROLOG_POWEROFF", "HOTPLUG_EPILOG_POWEROFF", "HOTPLUG_NIC_POWEROFF",
		"PROLOG_MIGRATE_POWEROFF", "PROLOG_MIGRATE_POWEROFF_FAILURE", "PROLOG_MIGRATE_SUSPEND", "PROLOG_MIGRATE_SUSPEND_FAILURE",
		"DISK_SNAPSHOT_POWEROFF", "DISK_SNAPSHOT_REVERT_POWEROFF", "DISK_SNAPSHOT_DELETE_POWEROFF",
		"DISK_SNAPSHOT_SUSPENDED", "DISK_SNAPSHOT_REVERT_SUSPENDED", "DISK_SNAPSHOT_DELETE_SUSPENDED",
		"DISK_RESIZE_POWEROFF", "DISK_RESIZE_UNDEPLOYED", "BACKUP_POWEROFF", "RESTORE",
	}},
})

type lcmGroup struct {
	shutdown bool
	reason   string
	states   []string
}

func makeLCMRules(groups []lcmGroup) map[string]StateRule {
	out := map[string]StateRule{}
	for _, g := range groups {
		for _, name := range g.states {
			out[name] = StateRule{LCM: true, Exists: true, Shutdown: g.shutdown, Reason: g.reason}
		}
	}
	return out
}

// ruleOf is the rule of a machine. Not known: a state of a later OpenNebula, of
// which nothing can be said but that the machine is there. An unknown LCM_STATE
// counts as one in which the machine may run.
func ruleOf(vm one.VM) (r StateRule, known bool) {
	if vm.State != one.VMActive {
		r, known = vmRules[vm.State]
		r.State = vm.State.String()
		return r, known
	}
	r, known = lcmRules[vm.LCMState.String()]
	if !known {
		r = StateRule{LCM: true, Exists: true, Reason: "a state of a later OpenNebula: the machine may run"}
	}
	r.State = vm.LCMState.String()
	return r, true
}

// StateRules lists the rules of all states, by number: STATE first, LCM_STATE of
// ACTIVE machines after them. It is the source of docs/reference/vm-states.md.
func StateRules() []StateRule {
	var out []StateRule
	for _, s := range one.VMStates() {
		if s != one.VMActive {
			r, _ := ruleOf(one.VM{State: s})
			out = append(out, r)
		}
	}
	for _, s := range one.LCMStates() {
		r, _ := ruleOf(one.VM{State: one.VMActive, LCMState: s})
		out = append(out, r)
	}
	return out
}
