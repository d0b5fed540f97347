package onesim

import "slices"

// vmsOnNets lists, by network, the VMs that have a NIC or an alias on it.
func (s *Sim) vmsOnNets() map[int][]int {
	out := map[int][]int{}
	for _, id := range s.vms.sorted() {
		v := s.vms.byID[id]
		if v.state == stateDone {
			continue
		}
		for _, n := range v.nics {
			if ids := out[n.net]; len(ids) == 0 || ids[len(ids)-1] != id {
				out[n.net] = append(ids, id)
			}
		}
	}
	return out
}

// writeVNet writes all but the ranges, which info and the pool show differently.
func (s *Sim) writeVNet(b *xmlOut, v *vnet, vms, vrouters []int) {
	b.open("VNET")
	s.writeHead(b, &v.object)
	v.writeLock(b)
	v.writePerms(b)
	b.ids("CLUSTERS", []int{0})
	t := v.template
	b.cdata("BRIDGE", t.get("BRIDGE"))
	b.cdata("BRIDGE_TYPE", t.get("BRIDGE_TYPE"))
	b.cdata("STATE", itoa(int(v.state)))
	b.cdata("PREV_STATE", itoa(int(v.prevState)))
	if v.parent >= 0 {
		b.int("PARENT_NETWORK_ID", v.parent)
	} else {
		b.empty("PARENT_NETWORK_ID")
	}
	b.empty("TEMPLATE_ID")
	b.cdata("VN_MAD", t.get("VN_MAD"))
	b.cdataOrEmpty("PHYDEV", t.get("PHYDEV"))
	b.cdataOrEmpty("VLAN_ID", t.get("VLAN_ID"))
	b.cdataOrEmpty("OUTER_VLAN_ID", t.get("OUTER_VLAN_ID"))
	b.int("VLAN_ID_AUTOMATIC", 0)
	b.int("OUTER_VLAN_ID_AUTOMATIC", 0)
	b.int("USED_LEASES", v.used())
	b.ids("VROUTERS", vrouters)
	b.ids("UPDATED_VMS", vms)
	b.ids("OUTDATED_VMS", nil)
	b.ids("UPDATING_VMS", nil)
	b.ids("ERROR_VMS", nil)
	t.writeXML(b, "TEMPLATE")
}

// vnInfo shows a user without MANAGE only the leases of what he may use, and no holds.
func vnInfo(c *call) (any, error) {
	v, err := c.vnetArg(opUse)
	if err != nil {
		return nil, err
	}
	see := func(uint64) bool { return true }
	vrouters := v.vrouters
	if !c.may(opManage, &v.object) {
		see = c.mayUseOwner
		vrouters = slices.DeleteFunc(slices.Clone(vrouters), func(id int) bool { return !c.mayUseOwner(ownerVRouter | uint64(id)) }) //nolint:gosec // an id
	}
	var b xmlOut
	c.writeVNet(&b, v, c.vmsOnNets()[v.id], vrouters)
	b.open("AR_POOL")
	for _, ar := range v.ars {
		ar.writeInfo(&b, see)
	}
	b.close("AR_POOL")
	b.close("VNET")
	return b.String(), nil
}

// mayUseOwner tells whether the caller may use what owns a lease.
func (c *call) mayUseOwner(owner uint64) bool {
	id := int(owner & idMask)
	switch owner &^ idMask {
	case ownerVM:
		v := c.vms.byID[id]
		return v != nil && c.may(opUse, &v.object)
	case ownerNet:
		v := c.vnets.byID[id]
		return v != nil && c.may(opUse, &v.object)
	case ownerVRouter:
		v := c.vrouters.byID[id]
		return v != nil && c.may(opUse, &v.object)
	}
	return false
}

// vnPoolInfo shows the raw ALLOCATED attribute in place of leases, to everybody who may use the network.
func vnPoolInfo(c *call) (any, error) {
	vms := c.vmsOnNets()
	return poolInfo(c, "VNET_POOL", &c.vnets, nil, func(b *xmlOut, v *vnet) {
		c.writeVNet(b, v, vms[v.id], v.vrouters)
		b.open("AR_POOL")
		for _, ar := range v.ars {
			b.vector("AR", ar.pairs(true))
		}
		b.close("AR_POOL")
		b.close("VNET")
	})
}
