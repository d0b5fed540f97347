package onesim

import (
	"slices"
	"strconv"
	"strings"
)

type nicState int

const (
	nicReady nicState = iota
	nicAttaching
	nicDetaching
)

// nic is a NIC or an alias of a VM.
type nic struct {
	id                int
	alias             bool
	parentID, aliasID int // of an alias
	hadAlias          bool
	net               int
	leased            bool
	arID, index       int
	attrs             attribute
	eth               []pair // its context variables
	unbooted          bool   // attached in POWEROFF: in the context from the next boot on
	state             nicState
}

func (n *nic) vectorName() string {
	if n.alias {
		return "NIC_ALIAS"
	}
	return "NIC"
}

func (n *nic) vector() attribute {
	a := n.attrs.clone()
	a.name = n.vectorName()
	if n.state != nicReady {
		a.set("ATTACH", "YES")
	}
	return a
}

// networkOf finds the network that a NIC names: by id, or by name and owner, the caller if none is named.
func (s *Sim) networkOf(uid int, a *attribute) (*vnet, error) {
	if text := a.get("NETWORK_ID"); text != "" {
		id, err := strconv.Atoi(text)
		if err != nil {
			return nil, fail(CodeAction, "Network ID must be an integer: %s", text)
		}
		v := s.vnetByID(id)
		if v == nil {
			return nil, fail(CodeAction, "Virtual network with ID: %d does not exist", id)
		}
		return v, nil
	}
	name := a.get("NETWORK")
	if name == "" {
		return nil, fail(CodeAction, "No virtual network id or name in NIC")
	}
	if text := a.get("NETWORK_UID"); text != "" {
		uid, _ = strconv.Atoi(text)
	} else if uname := a.get("NETWORK_UNAME"); uname != "" {
		u := s.userNamed(uname)
		if u == nil {
			return nil, fail(CodeAction, "User set in NETWORK_UNAME does not exist")
		}
		uid = u.id
	}
	v, ok := s.vnets.named(uid, name)
	if !ok || v.broken() {
		return nil, fail(CodeAction, "User %d does not own a network with name: %s . Set NETWORK_UNAME or NETWORK_UID of owner in NIC.", uid, name)
	}
	return v, nil
}

// netNeeds are the rights on the networks that a template's NICs name; one that does not exist fails later.
func (c *call) netNeeds(t *template) []need {
	var out []need
	for _, name := range []string{"NIC", "NIC_ALIAS"} {
		for _, a := range t.vectors(name) {
			if v, err := c.networkOf(c.user.id, a); err == nil {
				out = append(out, needs(opUse, &v.object))
			}
		}
	}
	return out
}

// takeLease gives the address that the NIC asks for, or the next free one.
func takeLease(v *vnet, a *attribute, owner uint64) (*addrRange, int, error) {
	denied := fail(CodeAction, "Cannot get IP/MAC lease from virtual network %d.", v.id)
	if v.state != netReady && v.state != netUpdateFailure {
		return nil, 0, denied
	}
	for _, key := range []string{"IP", "IP6", "MAC"} {
		value := a.get(key)
		if value == "" {
			continue
		}
		for _, ar := range v.ars {
			index, ok := ar.index(key, value)
			if ok && (ar.shared && !ar.leases.has(index, owner) || !ar.leases.taken(index)) {
				ar.leases.add(index, owner)
				return ar, index, nil
			}
		}
		return nil, 0, denied
	}
	for _, ar := range v.ars {
		if index, ok := ar.pick(); ok {
			ar.leases.add(index, owner)
			return ar, index, nil
		}
	}
	return nil, 0, denied
}

// counted tells whether a NIC's lease counts in the owner's quota: not in a reservation, which was counted whole.
func (s *Sim) counted(n *nic) bool {
	v := s.vnets.byID[n.net]
	return n.leased && v != nil && v.parent < 0
}

func vmOwner(id int) uint64 { return ownerVM | uint64(id) }

// addNIC gives a VM a NIC with its lease.
func (s *Sim) addNIC(v *vm, a *attribute, alias bool) (*nic, error) {
	var parent *nic
	if alias {
		if parent = v.nicNamed(a.get("PARENT")); parent == nil {
			return nil, fail(CodeAction, "Alias not found.")
		}
	}
	net, err := s.networkOf(v.uid, a)
	if err != nil {
		return nil, err
	}
	n := &nic{id: v.nextNIC(), alias: alias, net: net.id, attrs: a.clone()}
	ar, err := s.leaseNIC(v, n, net, a)
	if err != nil {
		return nil, err
	}
	if alias {
		n.parentID, n.aliasID, parent.hadAlias = parent.id, v.nextAlias(parent.id), true
		n.attrs.set("NAME", parent.attrs.get("NAME")+"_ALIAS"+itoa(n.id))
		n.attrs.set("PARENT", parent.attrs.get("NAME"))
		n.attrs.set("PARENT_ID", itoa(parent.id))
		n.attrs.set("ALIAS_ID", itoa(n.aliasID))
	}
	n.eth = networkContext(net, ar, &n.attrs)
	v.nics = append(v.nics, n)
	v.listAliases()
	return n, nil
}

// leaseNIC fills the NIC from its network. A FLOATING_ONLY NIC of a virtual router has no address of its own.
func (s *Sim) leaseNIC(v *vm, n *nic, net *vnet, a *attribute) (*addrRange, error) {
	s.describeNIC(v, n, net)
	if strings.EqualFold(a.get("FLOATING_ONLY"), "YES") && v.vrouter >= 0 {
		n.attrs.set("MAC", macString(defaultMACPrefix<<32|uint64(s.opts.RandomMAC())))
		return nil, nil
	}
	if net.parent < 0 {
		if err := s.useLeases(v.uid, v.gid, net.id, 1); err != nil {
			return nil, err
		}
	}
	ar, index, err := takeLease(net, a, vmOwner(v.id))
	if err != nil {
		if net.parent < 0 {
			s.countLeases(v.uid, v.gid, net.id, -1)
		}
		return nil, err
	}
	n.leased, n.arID, n.index = true, ar.id, index
	n.attrs.set("AR_ID", itoa(ar.id))
	for _, p := range ar.address(index) {
		n.attrs.set(p.key, p.value)
	}
	if ar.shared {
		n.attrs.set("MAC", macString(defaultMACPrefix<<32|uint64(s.opts.RandomMAC())))
	}
	return ar, nil
}

func (s *Sim) describeNIC(v *vm, n *nic, net *vnet) {
	a, t := &n.attrs, net.template
	a.set("BRIDGE", t.get("BRIDGE"))
	a.set("BRIDGE_TYPE", t.get("BRIDGE_TYPE"))
	a.set("CLUSTER_ID", "0")
	a.set("NAME", "NIC"+itoa(n.id))
	a.set("NETWORK", net.name)
	a.set("NETWORK_ID", itoa(net.id))
	a.set("NIC_ID", itoa(n.id))
	a.set("SECURITY_GROUPS", t.get("SECURITY_GROUPS"))
	a.set("TARGET", "one-"+itoa(v.id)+"-"+itoa(n.id))
	a.set("VN_MAD", t.get("VN_MAD"))
	if net.parent >= 0 {
		a.set("PARENT_NETWORK_ID", itoa(net.parent))
	}
	for _, key := range append([]string{"PHYDEV", "VLAN_ID"}, s.configured("INHERIT_VNET_ATTR")...) {
		if value := t.get(key); value != "" && !a.has(key) {
			a.set(key, value)
		}
	}
}

func (v *vm) nic(id int) *nic {
	for _, n := range v.nics {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (v *vm) nicNamed(name string) *nic {
	for _, n := range v.nics {
		if !n.alias && n.attrs.get("NAME") == name {
			return n
		}
	}
	return nil
}

// nextNIC is the highest id in use and one; ids are used again.
func (v *vm) nextNIC() int {
	next := 0
	for _, n := range v.nics {
		next = max(next, n.id+1)
	}
	return next
}

func (v *vm) nextAlias(parent int) int {
	next := 0
	for _, n := range v.nics {
		if n.alias && n.parentID == parent {
			next = max(next, n.aliasID+1)
		}
	}
	return next
}

// listAliases writes ALIAS_IDS of the NICs that have or had an alias.
func (v *vm) listAliases() {
	for _, parent := range v.nics {
		if !parent.hadAlias {
			continue
		}
		var ids []string
		for _, n := range v.nics {
			if n.alias && n.parentID == parent.id {
				ids = append(ids, itoa(n.id))
			}
		}
		parent.attrs.set("ALIAS_IDS", strings.Join(ids, ","))
	}
}

// removeNIC frees a NIC, and the aliases of a NIC with it.
func (s *Sim) removeNIC(v *vm, gone *nic) {
	v.nics = slices.DeleteFunc(v.nics, func(n *nic) bool {
		if n != gone && (gone.alias || !n.alias || n.parentID != gone.id) {
			return false
		}
		s.freeLease(v, n)
		return true
	})
	v.listAliases()
}

func (s *Sim) freeLease(v *vm, n *nic) {
	if !n.leased {
		return
	}
	net := s.vnets.byID[n.net]
	if net == nil {
		return
	}
	if s.counted(n) {
		s.countLeases(v.uid, v.gid, n.net, -1)
	}
	if ar := net.ar(n.arID); ar != nil {
		ar.leases.remove(n.index, vmOwner(v.id))
	}
	n.leased = false
}

// freeNICs gives all leases back; the NICs stay on the VM, as oned leaves them on a DONE one.
func (s *Sim) freeNICs(v *vm) {
	for _, n := range v.nics {
		s.freeLease(v, n)
	}
}
