package onesim

import "time"

// The actions that history records, by oned's numbers.
const (
	actionNone         = 0
	actionUndeploy     = 5
	actionUndeployHard = 6
	actionStop         = 9
	actionSuspend      = 10
	actionPoweroff     = 19
	actionPoweroffHard = 20
	actionNICAttach    = 23
	actionNICDetach    = 24
	actionTerminate    = 27
	actionTerminateH   = 28
	actionAliasAttach  = 46
	actionAliasDetach  = 47
)

// history is one record of where a VM ran and what ended it. Times are unix seconds, 0 for not yet.
type history struct {
	seq                                                          int
	host                                                         *host
	stime, etime, pstime, petime, rstime, retime, estime, eetime int64
	plan, planAction                                             int
	action, uid, gid, request                                    int
}

func (v *vm) lastHistory() *history {
	if len(v.history) == 0 {
		return nil
	}
	return &v.history[len(v.history)-1]
}

func (v *vm) openHistory(h *host, plan, planAction int) {
	v.history = append(v.history, history{
		seq: len(v.history), host: h, stime: time.Now().Unix(), plan: plan, planAction: planAction, uid: -1, gid: -1, request: -1,
	})
}

// note records who did what with the VM as it is.
func (v *vm) note(c *call, action int) {
	if r := v.lastHistory(); r != nil {
		r.action, r.uid, r.gid, r.request = action, c.user.id, c.groups[0], c.request
	}
}

// hotplugged closes the record with an attach or detach and opens the next one.
func (v *vm) hotplugged(c *call, action int) {
	r := v.lastHistory()
	if r == nil {
		return
	}
	before, now := *r, c.now.Unix()
	v.note(c, action)
	r.etime = now
	if r.retime == 0 {
		r.retime = now
	}
	v.openHistory(r.host, r.plan, r.planAction)
	next := v.lastHistory()
	next.rstime = now
	if v.state == statePoweroff {
		next.retime, next.action = now, before.action
	}
}

// resumed closes the record of a VM that was off and opens the next one.
func (v *vm) resumed(now int64) {
	r := v.lastHistory()
	if r.etime == 0 {
		r.etime = now
	}
	v.openHistory(r.host, r.plan, r.planAction)
	v.lastHistory().rstime = now
}

// left closes the record of a VM that leaves its host.
func (v *vm) left(now int64) {
	r := v.lastHistory()
	if r == nil {
		return
	}
	r.etime, r.retime, r.estime, r.eetime = now, now, now, now
}

func (r *history) writeXML(b *xmlOut, vmID int) {
	b.open("HISTORY")
	b.int("OID", vmID)
	b.int("SEQ", r.seq)
	b.text("HOSTNAME", r.host.name)
	b.int("HID", r.host.id)
	b.int("CID", 0)
	b.int("STIME", int(r.stime))
	b.int("ETIME", int(r.etime))
	b.cdata("VM_MAD", r.host.vmMAD)
	b.cdata("TM_MAD", "dummy")
	b.int("DS_ID", 0)
	b.int("PLAN_ID", r.plan)
	b.int("ACTION_ID", r.planAction)
	for _, t := range []struct {
		name string
		at   int64
	}{
		{"PSTIME", r.pstime}, {"PETIME", r.petime}, {"RSTIME", r.rstime}, {"RETIME", r.retime}, {"ESTIME", r.estime}, {"EETIME", r.eetime},
	} {
		b.int(t.name, int(t.at))
	}
	b.int("ACTION", r.action)
	b.int("UID", r.uid)
	b.int("GID", r.gid)
	b.int("REQUEST_ID", r.request)
	b.close("HISTORY")
}

// writeShort is the record as vmpool.info shows it.
func (r *history) writeShort(b *xmlOut, vmID int) {
	b.open("HISTORY")
	b.int("OID", vmID)
	b.int("SEQ", r.seq)
	b.cdata("HOSTNAME", r.host.name)
	b.int("HID", r.host.id)
	b.int("CID", 0)
	b.int("DS_ID", 0)
	b.cdata("VM_MAD", r.host.vmMAD)
	b.cdata("TM_MAD", "dummy")
	b.cdata("ACTION", itoa(r.action))
	b.close("HISTORY")
}
