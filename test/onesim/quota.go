package onesim

import (
	"fmt"
	"slices"
	"strconv"
)

const noLimit = -1

// quota counts the leases of a user or a group by network; what VMs use is counted when asked for. oneadmin and
// its group have none. Holds are not counted.
type quota struct{ nets []netQuota }

type netQuota struct{ net, limit, used int }

func itoa(n int) string { return strconv.Itoa(n) }

func (q *quota) find(net int) *netQuota {
	for i := range q.nets {
		if q.nets[i].net == net {
			return &q.nets[i]
		}
	}
	return nil
}

func (q *quota) add(net, n int) {
	e := q.find(net)
	if e == nil {
		q.nets = append(q.nets, netQuota{net: net, limit: noLimit})
		e = &q.nets[len(q.nets)-1]
	}
	e.used = max(0, e.used+n)
	q.drop(net)
}

// drop forgets an entry that says nothing.
func (q *quota) drop(net int) {
	q.nets = slices.DeleteFunc(q.nets, func(e netQuota) bool { return e.net == net && e.used == 0 && e.limit == noLimit })
}

func (q *quota) setLimit(net, limit int) {
	e := q.find(net)
	if e == nil {
		q.nets = append(q.nets, netQuota{net: net})
		e = &q.nets[len(q.nets)-1]
	}
	e.limit = limit
	q.drop(net)
}

func (q *quota) exceeds(net, n int) (int, bool) {
	e := q.find(net)
	return limitOf(e), e != nil && e.limit >= 0 && e.used+n > e.limit
}

func limitOf(e *netQuota) int {
	if e == nil {
		return noLimit
	}
	return e.limit
}

// useLeases counts n leases of a network to an owner, or tells which limit forbids it.
func (s *Sim) useLeases(uid, gid, net, n int) error {
	u, g := s.users.byID[uid], s.groups.byID[gid]
	if u != nil && uid != 0 {
		if limit, over := u.quota.exceeds(net, n); over {
			return overQuota(uid, "user", uid, limit, net)
		}
	}
	if g != nil && gid != 0 {
		if limit, over := g.quota.exceeds(net, n); over {
			return overQuota(uid, "group", gid, limit, net)
		}
	}
	s.countLeases(uid, gid, net, n)
	return nil
}

func overQuota(uid int, what string, id, limit, net int) error {
	return fail(CodeAuthorization, "User [%d] : %s [%d] limit of %d reached for LEASES quota in NETWORK with ID: %d.",
		uid, what, id, limit, net)
}

// countLeases counts without a limit; n may be negative.
func (s *Sim) countLeases(uid, gid, net, n int) {
	if u := s.users.byID[uid]; u != nil && uid != 0 {
		u.quota.add(net, n)
	}
	if g := s.groups.byID[gid]; g != nil && gid != 0 {
		g.quota.add(net, n)
	}
}

func (s *Sim) writeQuota(b *xmlOut, q *quota, mine func(*vm) bool) {
	b.ids("DATASTORE_QUOTA", nil)
	b.open("NETWORK_QUOTA")
	for _, e := range q.nets {
		b.vector("NETWORK", []pair{{"ID", itoa(e.net)}, {"LEASES", itoa(e.limit)}, {"LEASES_USED", itoa(e.used)}})
	}
	b.close("NETWORK_QUOTA")
	s.writeVMQuota(b, mine)
	b.ids("IMAGE_QUOTA", nil)
}

func writeDefaultQuotas(b *xmlOut, name string) {
	b.open(name)
	for _, q := range []string{"DATASTORE_QUOTA", "NETWORK_QUOTA", "VM_QUOTA", "IMAGE_QUOTA"} {
		b.ids(q, nil)
	}
	b.close(name)
}

// vmUsage is what VMs take from a quota.
type vmUsage struct {
	vms, memory int
	cpu         float64
}

func (u *vmUsage) add(v *vm) {
	cpu, _ := strconv.ParseFloat(v.template.get("CPU"), 64)
	memory, _ := strconv.Atoi(v.template.get("MEMORY"))
	u.vms++
	u.cpu += cpu
	u.memory += memory
}

func (s *Sim) writeVMQuota(b *xmlOut, mine func(*vm) bool) {
	var all, running vmUsage
	for _, v := range s.vms.byID {
		if !mine(v) || v.state == stateDone {
			continue
		}
		all.add(v)
		if v.state == stateActive || v.state == statePending || v.state == stateHold {
			running.add(v)
		}
	}
	b.open("VM_QUOTA")
	if all.vms > 0 {
		cpu := func(u vmUsage) string { return fmt.Sprintf("%.2f", u.cpu) }
		pairs := []pair{}
		for _, use := range []struct{ key, used string }{
			{"CPU", cpu(all)}, {"MEMORY", itoa(all.memory)}, {"PCI_DEV", "0"}, {"PCI_NIC", "0"},
			{"RUNNING_CPU", cpu(running)}, {"RUNNING_MEMORY", itoa(running.memory)}, {"RUNNING_PCI_DEV", "0"},
			{"RUNNING_PCI_NIC", "0"}, {"RUNNING_VMS", itoa(running.vms)}, {"SYSTEM_DISK_SIZE", "0"}, {"VMS", itoa(all.vms)},
		} {
			pairs = append(pairs, pair{use.key, itoa(noLimit)}, pair{use.key + "_USED", use.used})
		}
		b.vector("VM", pairs)
	}
	b.close("VM_QUOTA")
}

func quotaMethods() []method {
	return []method{{name: "one.group.quota", params: "is", write: true, run: groupQuota}}
}

func userQuota(c *call) (any, error) {
	u, err := c.userArg(0)
	if err != nil {
		return nil, err
	}
	if err := c.authorize(needs(opAdmin, &u.object)); err != nil {
		return nil, err
	}
	if u.id == 0 {
		return nil, fail(CodeAction, "Cannot set quotas for oneadmin user")
	}
	return u.id, setQuota(&u.quota, c.str(1))
}

func groupQuota(c *call) (any, error) {
	g := c.Sim.groups.byID[c.int(0)]
	if g == nil {
		return nil, noExists(kindGroup, c.int(0))
	}
	if err := c.authorize(needs(opAdmin, &g.object)); err != nil {
		return nil, err
	}
	if g.id == 0 {
		return nil, fail(CodeAction, "Cannot set quotas for oneadmin group")
	}
	return g.id, setQuota(&g.quota, c.str(1))
}

// setQuota takes limits on leases; others are refused rather than ignored.
func setQuota(q *quota, text string) error {
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	for i := range t.attrs {
		a := &t.attrs[i]
		if a.name != "NETWORK" || !a.vector {
			return fail(CodeInternal, "Only NETWORK quotas are simulated, got %s", a.name)
		}
		net, err1 := strconv.Atoi(a.get("ID"))
		limit, err2 := strconv.Atoi(a.get("LEASES"))
		if err1 != nil || err2 != nil || limit < -2 {
			return fail(CodeXMLRPCAPI, "Limit for quota NETWORK is not a number, or ID is missing")
		}
		q.setLimit(net, limit)
	}
	return nil
}
