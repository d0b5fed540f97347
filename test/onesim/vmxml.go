package onesim

import (
	"slices"
	"strconv"
	"time"
)

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// fullTemplate is the VM's TEMPLATE with its NICs and its context.
func (s *Sim) fullTemplate(v *vm) *template {
	t := v.template.clone()
	if v.context != nil {
		t.add(s.contextOf(v))
	}
	secured := false
	for _, n := range v.nics {
		t.add(n.vector())
		secured = secured || n.attrs.get("SECURITY_GROUPS") != ""
	}
	if secured {
		for _, direction := range []string{"OUTBOUND", "INBOUND"} {
			t.add(newVector("SECURITY_GROUP_RULE", "PROTOCOL", "ALL", "RULE_TYPE", direction,
				"SECURITY_GROUP_ID", "0", "SECURITY_GROUP_NAME", "default"))
		}
	}
	return t
}

// writeVM is the whole VM; info adds what the pool leaves out, the last monitoring and the earlier history.
func (s *Sim) writeVM(b *xmlOut, v *vm, info bool) {
	b.open("VM")
	s.writeHead(b, &v.object)
	v.writePerms(b)
	polled := info && v.running()
	lastPoll := 0
	if polled {
		lastPoll = int(time.Now().Unix())
	}
	b.int("LAST_POLL", lastPoll)
	b.int("STATE", int(v.state))
	b.int("LCM_STATE", int(v.lcm))
	b.int("PREV_STATE", int(v.state))
	b.int("PREV_LCM_STATE", int(v.lcm))
	b.int("RESCHED", flag(v.resched))
	b.int("STIME", int(v.started))
	b.int("ETIME", int(v.ended))
	b.text("DEPLOY_ID", v.deployID)
	v.writeLock(b)
	if polled {
		b.vector("MONITORING", v.monitoring())
	} else {
		b.empty("MONITORING")
	}
	b.empty("SCHED_ACTIONS")
	s.fullTemplate(v).writeXML(b, "TEMPLATE")
	v.userTemplate.writeXML(b, "USER_TEMPLATE")
	b.open("HISTORY_RECORDS")
	for i := range v.history {
		if info || i == len(v.history)-1 {
			v.history[i].writeXML(b, v.id)
		}
	}
	b.close("HISTORY_RECORDS")
	b.open("BACKUPS")
	b.empty("BACKUP_CONFIG")
	b.empty("BACKUP_IDS")
	b.close("BACKUPS")
	b.close("VM")
}

// monitoring is what the dummy driver reports of a running VM: an idle one.
func (v *vm) monitoring() []pair {
	return []pair{
		{"CPU", "0"}, {"DISKRDBYTES", "0"}, {"DISKRDIOPS", "0"}, {"DISKWRBYTES", "0"}, {"DISKWRIOPS", "0"}, {"ID", itoa(v.id)},
		{"MEMORY", "16384"}, {"NETRX", "0"}, {"NETTX", "0"}, {"TIMESTAMP", strconv.FormatInt(time.Now().Unix(), 10)},
	}
}

var (
	shortNICKeys  = []string{"IP", "IP6", "IP6_GLOBAL", "IP6_LINK", "IP6_ULA", "MAC", "NETWORK", "NETWORK_ID", "NIC_ID", "SECURITY_GROUPS"}
	shortUserKeys = []string{"ERROR", "LABELS", "SCHED_DS_RANK", "SCHED_DS_REQUIREMENTS", "SCHED_MESSAGE", "SCHED_RANK", "SCHED_REQUIREMENTS"}
)

// writeShortVM is the VM as vmpool.info shows it.
func (s *Sim) writeShortVM(b *xmlOut, v *vm) {
	b.open("VM")
	s.writeHead(b, &v.object)
	b.int("LAST_POLL", 0)
	b.int("STATE", int(v.state))
	b.int("LCM_STATE", int(v.lcm))
	b.int("RESCHED", flag(v.resched))
	b.int("STIME", int(v.started))
	b.int("ETIME", int(v.ended))
	b.text("DEPLOY_ID", v.deployID)
	b.open("TEMPLATE")
	for _, key := range []string{"CPU", "MEMORY", "VCPU"} {
		if v.template.has(key) {
			b.text(key, v.template.get(key))
		}
	}
	for _, n := range v.nics {
		a := n.vector()
		a.pairs = slices.DeleteFunc(a.pairs, func(p pair) bool { return !slices.Contains(shortNICKeys, p.key) })
		a.writeXML(b)
	}
	b.close("TEMPLATE")
	b.empty("MONITORING")
	b.open("USER_TEMPLATE")
	for i := range v.userTemplate.attrs {
		if a := &v.userTemplate.attrs[i]; slices.Contains(shortUserKeys, a.name) {
			a.writeXML(b)
		}
	}
	b.close("USER_TEMPLATE")
	b.open("HISTORY_RECORDS")
	if r := v.lastHistory(); r != nil {
		r.writeShort(b, v.id)
	}
	b.close("HISTORY_RECORDS")
	b.close("VM")
}
