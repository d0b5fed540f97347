package onesim

import "slices"

// host is a hypervisor. Its hardware is that of the dummy driver: 8 cores, 16 GiB.
type host struct {
	object
	imMAD, vmMAD string
}

const (
	hostCPU        = 800      // percent
	hostMemory     = 16777216 // KiB
	hostMonitored  = 2        // STATE
	datastoreTotal = 20480    // MiB
	datastoreUsed  = 9720     // MiB
	clusterDefault = 0
)

func hostMethods() []method {
	return []method{
		{name: "one.host.allocate", params: "sss|i", write: true, run: hostAllocate},
		{name: "one.host.info", params: "i|b", run: hostInfo},
		{name: "one.hostpool.info", run: hostPoolInfo},
	}
}

func (s *Sim) newHost(name, imMAD, vmMAD string) *host {
	h := &host{object: object{kind: kindHost, id: s.hosts.take(), name: name}, imMAD: imMAD, vmMAD: vmMAD}
	s.hosts.insert(h)
	return h
}

func hostAllocate(c *call) (any, error) {
	cl := c.clusters.byID[max(clusterDefault, c.intOr(3, -1))]
	if cl == nil {
		return nil, noExists(kindCluster, c.int(3))
	}
	if err := c.authorize(creates(kindHost), needs(opAdmin, &cl.object)); err != nil {
		return nil, err
	}
	if err := checkName(c.str(0)); err != nil {
		return nil, err
	}
	for _, h := range c.hosts.byID {
		if h.name == c.str(0) {
			return nil, fail(CodeInternal, "NAME is already taken by HOST %d.", h.id)
		}
	}
	return c.newHost(c.str(0), c.str(1), c.str(2)).id, nil
}

// onHost are the VMs that take room on a host, with what they take.
func (s *Sim) onHost(h *host) ([]int, vmUsage) {
	var ids []int
	var use vmUsage
	for _, id := range s.vms.sorted() {
		v := s.vms.byID[id]
		r := v.lastHistory()
		if r == nil || r.host != h {
			continue
		}
		if v.state == stateActive || v.state == statePoweroff || v.state == stateSuspended {
			ids = append(ids, id)
			use.add(v)
		}
	}
	return ids, use
}

func (s *Sim) writeHost(b *xmlOut, h *host) {
	ids, use := s.onHost(h)
	b.open("HOST")
	b.int("ID", h.id)
	b.text("NAME", h.name)
	b.int("STATE", hostMonitored)
	b.int("PREV_STATE", hostMonitored)
	b.cdata("IM_MAD", h.imMAD)
	b.cdata("VM_MAD", h.vmMAD)
	b.int("CLUSTER_ID", clusterDefault)
	b.text("CLUSTER", s.clusters.byID[clusterDefault].name)
	b.open("HOST_SHARE")
	b.int("MEM_USAGE", use.memory*1024)
	b.int("CPU_USAGE", int(use.cpu*100+0.5))
	b.int("TOTAL_MEM", hostMemory)
	b.int("TOTAL_CPU", hostCPU)
	b.int("MAX_MEM", hostMemory)
	b.int("MAX_CPU", hostCPU)
	b.int("RUNNING_VMS", len(ids))
	b.int("VMS_THREAD", 1)
	b.vector("DATASTORES", []pair{
		{"DISK_USAGE", "0"}, {"FREE_DISK", itoa(datastoreTotal)}, {"MAX_DISK", itoa(datastoreTotal)},
		{"USED_DISK", itoa(datastoreUsed)},
	})
	b.empty("PCI_DEVICES")
	b.empty("NUMA_NODES")
	b.close("HOST_SHARE")
	b.ids("VMS", ids)
	b.vector("TEMPLATE", []pair{
		{"ARCH", "x86_64"}, {"CPUSPEED", "3200"}, {"HOSTNAME", h.name}, {"HYPERVISOR", "dummy"}, {"IM_MAD", h.imMAD},
		{"MODELNAME", "Dummy(R) Core @ 3.2GHz"}, {"RESERVED_CPU", ""}, {"RESERVED_MEM", ""}, {"TOTALCPU", itoa(hostCPU)},
		{"TOTALMEMORY", itoa(hostMemory)}, {"VM_MAD", h.vmMAD},
	})
	b.empty("MONITORING")
	b.close("HOST")
}

func hostInfo(c *call) (any, error) {
	h := c.hosts.byID[c.int(0)]
	if h == nil {
		return nil, noExists(kindHost, c.int(0))
	}
	if err := c.read(&h.object); err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeHost(&b, h)
	return b.String(), nil
}

func hostPoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("HOST_POOL")
	ids := c.hosts.sorted()
	for _, v := range slices.Backward(ids) {
		if h := c.hosts.byID[v]; c.may(opUse, &h.object) {
			c.writeHost(&b, h)
		}
	}
	b.close("HOST_POOL")
	return b.String(), nil
}
