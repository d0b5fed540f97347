package onesim

import (
	"fmt"
	"net/netip"
	"strings"
)

// AddGroup makes a group in the default VDC, or returns the one of that name.
func (s *Sim) AddGroup(name string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addGroup(name)
}

func (s *Sim) addGroup(name string) (int, error) {
	if g := s.groupNamed(name); g != nil {
		return g.id, nil
	}
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	return s.newGroup(name).id, nil
}

// AddUser makes a user with a password; an empty group is "users", another one is made when missing.
func (s *Sim) AddUser(name, password, group string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.userNamed(name) != nil {
		return 0, fmt.Errorf("user %q exists already", name)
	}
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("user %q: %w", name, err)
	}
	if group == "" {
		group = "users"
	}
	gid, err := s.addGroup(group)
	if err != nil {
		return 0, err
	}
	return s.newUser(name, password, "core", []int{gid}).id, nil
}

// SetPassword changes a user's password and ends his tokens, as one.user.passwd does.
func (s *Sim) SetPassword(name, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(name)
	if err != nil {
		return err
	}
	u.passwordHash, u.tokens = hashPassword(password), nil
	return nil
}

// AddHost makes a host with dummy drivers.
func (s *Sim) AddHost(name string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("host %q: %w", name, err)
	}
	return s.newHost(name, "dummy", "dummy").id, nil
}

// owner is the user of that name, oneadmin for "". The caller holds mu.
func (s *Sim) owner(name string) (*user, error) {
	if name == "" {
		name = "oneadmin"
	}
	if u := s.userNamed(name); u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("user %q: %w", name, ErrNotFound)
}

// AddVNet makes a network from a template, as one.vn.allocate does, and has it READY. An empty owner is oneadmin.
func (s *Sim) AddVNet(owner, text string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(owner)
	if err != nil {
		return 0, err
	}
	t, err := parseTemplate(text)
	if err != nil {
		return 0, fmt.Errorf("network template: %w", err)
	}
	name := t.get("NAME")
	t.setDefault("VN_MAD", "dummy")
	v, err := s.newVNet(u, t)
	if err != nil {
		return 0, fmt.Errorf("network %q: %w", name, err)
	}
	s.netCreated(v)
	if v.state != netReady {
		delete(s.vnets.byID, v.id)
		return 0, fmt.Errorf("network %q: %s", name, v.template.get("ERROR"))
	}
	return v.id, nil
}

// NICSpec is a NIC to be made: on a network by id, with the address wanted or the next free one. IP and IP6 together
// must be a pair of an IP4_6_STATIC range. Alias puts it on the VM's first NIC, and comes after the NICs. Floating and FloatingOnly are for virtual routers.
type NICSpec struct {
	Network                int
	IP, IP6                netip.Addr
	Alias                  bool
	Floating, FloatingOnly bool
}

func (n NICSpec) attribute() attribute {
	a := newVector("NIC", "NETWORK_ID", itoa(n.Network))
	if n.Alias {
		a.name = "NIC_ALIAS"
		a.set("PARENT", "NIC0")
	}
	if n.IP.IsValid() {
		a.set("IP", n.IP.String())
	} else if n.IP6.IsValid() {
		a.set("IP6", n.IP6.String())
	}
	if n.Floating || n.FloatingOnly {
		a.set("FLOATING_IP", "YES")
	}
	if n.FloatingOnly {
		a.set("FLOATING_ONLY", "YES")
	}
	return a
}

// VMSpec is a VM to be made. State is RUNNING when empty; see SetVMState. Template is added to its template.
type VMSpec struct {
	Name     string
	Owner    string
	State    string
	Host     int
	NICs     []NICSpec
	Template string
}

const minimalVM = "CPU=\"0.1\"\nMEMORY=\"64\"\nCONTEXT=[NETWORK=\"YES\"]"

// AddVM makes a VM in the state wanted, on a host that exists unless the state is PENDING or HOLD.
func (s *Sim) AddVM(spec VMSpec) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(spec.Owner)
	if err != nil {
		return 0, fmt.Errorf("VM %q: %w", spec.Name, err)
	}
	t := mustTemplate(minimalVM)
	more, err := parseTemplate(spec.Template)
	if err != nil {
		return 0, fmt.Errorf("VM %q: %w", spec.Name, err)
	}
	t.merge(more)
	for _, n := range spec.NICs {
		t.add(n.attribute())
	}
	v, err := s.newVM(u, u.gid, spec.Name, t, true, nil)
	if err != nil {
		return 0, fmt.Errorf("VM %q: %w", spec.Name, err)
	}
	v.template.del("SUBMIT_ON_HOLD")
	err = checkNICs(v, spec.NICs)
	if err == nil {
		err = s.forceState(v, spec.State, spec.Host)
	}
	if err != nil {
		s.finish(v)
		delete(s.vms.byID, v.id)
		return 0, err
	}
	return v.id, nil
}

// checkNICs makes sure that a NIC got both addresses that were asked for: they must be a pair of one range.
func checkNICs(v *vm, list []NICSpec) error {
	for i, n := range list {
		if n.IP.IsValid() && n.IP6.IsValid() && v.nics[i].attrs.get("IP6") != n.IP6.String() {
			return fmt.Errorf("VM %q: %s and %s are not a pair of one address range of network %d", v.name, n.IP, n.IP6, n.Network)
		}
	}
	return nil
}

// SetVMState puts a VM into a state by its oned name: PENDING, HOLD, RUNNING, POWEROFF, SUSPENDED, STOPPED,
// UNDEPLOYED, UNKNOWN, HOTPLUG_NIC, BOOT_FAILURE or DONE, without a driver's doing. DONE frees its leases.
func (s *Sim) SetVMState(id int, state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vms.byID[id]
	if v == nil {
		return fmt.Errorf("VM %d: %w", id, ErrNotFound)
	}
	return s.forceState(v, state, -1)
}

func (s *Sim) forceState(v *vm, name string, hostID int) error {
	if name == "" {
		name = "RUNNING"
	}
	state, lcm, ok := stateByName(strings.ToUpper(name))
	if !ok {
		return fmt.Errorf("VM %q: state %q is unknown", v.name, name)
	}
	if state != statePending && state != stateHold && state != stateDone && len(v.history) == 0 {
		h := s.hosts.byID[max(0, hostID)]
		if h == nil {
			return fmt.Errorf("VM %q: host %d: %w", v.name, hostID, ErrNotFound)
		}
		s.deploy(v, h, -2, -1)
		s.booted(v, h, lcmProlog)
	}
	if state == stateDone {
		s.finish(v)
		return nil
	}
	v.set(state, lcm)
	return nil
}

func stateByName(name string) (vmState, lcmState, bool) {
	for state, text := range stateNames {
		if text == name && state != stateActive {
			return state, lcmInit, true
		}
	}
	for lcm, text := range lcmNames {
		if text == name && lcm != lcmInit {
			return stateActive, lcm, true
		}
	}
	return 0, 0, false
}

// VRouterSpec is a virtual router with one running VM for each name.
type VRouterSpec struct {
	Name  string
	Owner string
	Host  int
	NICs  []NICSpec
	VMs   []string
}

// AddVRouter makes a virtual router and its VMs. The ids of the VMs are returned in the order of their names.
func (s *Sim) AddVRouter(spec VRouterSpec) (id int, vms []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(spec.Owner)
	if err != nil {
		return 0, nil, fmt.Errorf("virtual router %q: %w", spec.Name, err)
	}
	t := &template{}
	t.set("NAME", spec.Name)
	for _, n := range spec.NICs {
		t.add(n.attribute())
	}
	r, err := s.newVRouter(u, t)
	if err != nil {
		return 0, nil, fmt.Errorf("virtual router %q: %w", spec.Name, err)
	}
	base := &vmTemplate{template: mustTemplate(minimalVM + "\nVROUTER=\"YES\"")}
	for _, name := range spec.VMs {
		v, err := s.instantiateRouter(u, r, base, name, true, &template{})
		if err == nil {
			err = s.forceState(v, "", spec.Host)
		}
		if err != nil {
			return 0, nil, fmt.Errorf("VM %q of virtual router %q: %w", name, spec.Name, err)
		}
		vms = append(vms, v.id)
	}
	return r.id, vms, nil
}

// Allow gives a user rights on one object, or on all of a kind with id -1: Allow("k8s", "NET", 1, "USE", "MANAGE").
func (s *Sim) Allow(userName, kindName string, id int, rights ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(userName)
	if err != nil {
		return err
	}
	r := rule{user: selectOne | uint64(u.id), zone: selectOne, resource: selectAll}
	if id >= 0 {
		r.resource = selectOne | uint64(id)
	}
	known := false
	for _, k := range resourceNames {
		if k.name == strings.ToUpper(kindName) {
			r.resource, known = r.resource|k.bit, true
		}
	}
	if !known {
		return fmt.Errorf("kind of object %q: %w", kindName, ErrNotFound)
	}
	for _, right := range rights {
		i := opIndex(strings.ToUpper(right))
		if i < 0 {
			return fmt.Errorf("right %q: %w", right, ErrNotFound)
		}
		r.rights |= opRights[i]
	}
	if r.rights == 0 {
		return fmt.Errorf("no rights for %s on %s", userName, kindName)
	}
	s.addRule(r)
	return nil
}

func opIndex(name string) int {
	for i, n := range opNames {
		if n == name {
			return i
		}
	}
	return -1
}
