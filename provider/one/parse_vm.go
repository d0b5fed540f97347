package one

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type xmlVM struct {
	XMLName      xml.Name
	ID           *int         `xml:"ID"`
	Name         string       `xml:"NAME"`
	Owner        string       `xml:"UNAME"`
	State        string       `xml:"STATE"`
	LCMState     string       `xml:"LCM_STATE"`
	UUID         string       `xml:"TEMPLATE>OS>UUID"`
	NICs         []xmlNIC     `xml:"TEMPLATE>NIC"`
	Aliases      []xmlNIC     `xml:"TEMPLATE>NIC_ALIAS"`
	PCIs         []xmlNIC     `xml:"TEMPLATE>PCI"` // passed-through NICs among others
	CPU          string       `xml:"TEMPLATE>CPU"`
	VCPU         string       `xml:"TEMPLATE>VCPU"`
	Memory       string       `xml:"TEMPLATE>MEMORY"`
	VRouter      string       `xml:"TEMPLATE>VROUTER_ID"`
	Rules        []xmlRule    `xml:"TEMPLATE>SECURITY_GROUP_RULE"`
	UserTemplate xmlAttrs     `xml:"USER_TEMPLATE"`
	History      []xmlHistory `xml:"HISTORY_RECORDS>HISTORY"`
}

type xmlNIC struct {
	ID        string `xml:"NIC_ID"`
	Network   string `xml:"NETWORK"`
	NetworkID string `xml:"NETWORK_ID"`
	IP        string `xml:"IP"`
	IP6       string `xml:"IP6"`
	IP6Global string `xml:"IP6_GLOBAL"`
	IP6ULA    string `xml:"IP6_ULA"`
	Attach    string `xml:"ATTACH"`
	Type      string `xml:"TYPE"`
	Name      string `xml:"NAME"`
	ParentNet string `xml:"PARENT_NETWORK_ID"`
	External  string `xml:"EXTERNAL"`
	Filter    string `xml:"FILTER_IP_SPOOFING"`
	Groups    string `xml:"SECURITY_GROUPS"`
}

type xmlHistory struct {
	Seq     string `xml:"SEQ"`
	Host    string `xml:"HOSTNAME"`
	HostID  string `xml:"HID"`
	Cluster string `xml:"CID"`
}

// parseVM reads the document of one.vm.info.
func parseVM(body []byte) (VM, error) {
	var x xmlVM
	if err := xml.Unmarshal(body, &x); err != nil {
		return VM{}, err
	}
	if x.XMLName.Local != "VM" {
		return VM{}, fmt.Errorf("no virtual machine but a document <%s>", x.XMLName.Local)
	}
	return x.parse()
}

// parseVMPool reads the document of one.vmpool.infoextended, sorted by ID.
func parseVMPool(body []byte) ([]VM, error) {
	var x struct {
		XMLName xml.Name
		VMs     []xmlVM `xml:"VM"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return nil, err
	}
	if x.XMLName.Local != "VM_POOL" {
		return nil, fmt.Errorf("no pool of virtual machines but a document <%s>", x.XMLName.Local)
	}
	out := make([]VM, 0, len(x.VMs))
	for i := range x.VMs {
		if x.VMs[i].ID == nil || *x.VMs[i].ID < 0 {
			return nil, errors.New("a virtual machine has no ID")
		}
		vm, err := x.VMs[i].parse()
		if err != nil {
			vm = VM{ID: *x.VMs[i].ID, Name: x.VMs[i].Name, Owner: x.VMs[i].Owner, HostID: -1, ClusterID: -1, Err: err}
		}
		out = append(out, vm)
	}
	slices.SortFunc(out, func(a, b VM) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (x *xmlVM) parse() (VM, error) {
	if x.ID == nil || *x.ID < 0 {
		return VM{}, errors.New("a virtual machine has no ID")
	}
	vm := VM{
		ID: *x.ID, Name: x.Name, Owner: x.Owner, UUID: strings.TrimSpace(x.UUID), HostID: -1, ClusterID: -1,
		VirtualRouter: strings.TrimSpace(x.VRouter) != "", Attributes: x.UserTemplate.singles,
	}
	if vm.Attributes == nil {
		vm.Attributes = map[string]string{}
	}
	for _, parse := range []func(*VM) error{x.parseState, x.parseCapacity, x.parseHistory, x.parseNICs} {
		if err := parse(&vm); err != nil {
			return VM{}, fmt.Errorf("VM %d: %w", vm.ID, err)
		}
	}
	for i := range x.Rules {
		vm.Rules = append(vm.Rules, x.Rules[i].parse())
	}
	return vm, nil
}

func (x *xmlVM) parseState(vm *VM) error {
	state, err := strconv.Atoi(strings.TrimSpace(x.State))
	if err != nil {
		return fmt.Errorf("STATE: %w", err)
	}
	lcm, err := strconv.Atoi(cmp.Or(strings.TrimSpace(x.LCMState), "0"))
	if err != nil {
		return fmt.Errorf("LCM_STATE: %w", err)
	}
	vm.State, vm.LCMState = VMState(state), LCMState(lcm)
	return nil
}

func (x *xmlVM) parseCapacity(vm *VM) error {
	var err error
	if vm.CPU, err = strconv.ParseFloat(cmp.Or(strings.TrimSpace(x.CPU), "0"), 64); err != nil {
		return fmt.Errorf("CPU: %w", err)
	}
	if vm.VCPU, err = strconv.Atoi(cmp.Or(strings.TrimSpace(x.VCPU), "1")); err != nil {
		return fmt.Errorf("VCPU: %w", err)
	}
	if vm.MemoryMB, err = strconv.Atoi(cmp.Or(strings.TrimSpace(x.Memory), "0")); err != nil {
		return fmt.Errorf("MEMORY: %w", err)
	}
	return nil
}

// parseHistory takes the host from the record with the highest number.
func (x *xmlVM) parseHistory(vm *VM) error {
	last := -1
	for _, h := range x.History {
		seq, err := strconv.Atoi(strings.TrimSpace(h.Seq))
		if err != nil {
			return fmt.Errorf("HISTORY: SEQ: %w", err)
		}
		if seq < last {
			continue
		}
		cluster, err := optionalID(h.Cluster)
		if err != nil {
			return fmt.Errorf("HISTORY: CID: %w", err)
		}
		host, err := optionalID(h.HostID)
		if err != nil {
			return fmt.Errorf("HISTORY: HID: %w", err)
		}
		last, vm.Host, vm.HostID, vm.ClusterID = seq, h.Host, host, cluster
	}
	return nil
}

func (x *xmlVM) parseNICs(vm *VM) error {
	passed := slices.DeleteFunc(slices.Clone(x.PCIs), func(n xmlNIC) bool { return strings.TrimSpace(n.Type) != "NIC" })
	for i, n := range slices.Concat(x.Aliases, x.NICs, passed) {
		nic, err := n.parse()
		if err != nil {
			return err
		}
		nic.Alias = i < len(x.Aliases)
		vm.NICs = append(vm.NICs, nic)
	}
	slices.SortStableFunc(vm.NICs, func(a, b NIC) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

func (x *xmlNIC) parse() (NIC, error) {
	id, err := strconv.Atoi(strings.TrimSpace(x.ID))
	if err != nil || id < 0 {
		return NIC{}, fmt.Errorf("a NIC has the ID %q", x.ID)
	}
	net, err := optionalID(x.NetworkID)
	if err != nil {
		return NIC{}, fmt.Errorf("NIC %d: NETWORK_ID: %w", id, err)
	}
	parent, err := optionalID(x.ParentNet)
	if err != nil {
		return NIC{}, fmt.Errorf("NIC %d: PARENT_NETWORK_ID: %w", id, err)
	}
	n := NIC{
		ParentNetworkID: parent, ID: id, Name: x.Name, Network: x.Network, NetworkID: net, Attaching: isYes(x.Attach),
		External: isYes(x.External), SpoofingFilter: isYes(x.Filter), SecurityGroups: securityGroups(x.Groups),
	}
	for _, s := range []string{x.IP, x.IP6, x.IP6Global, x.IP6ULA} {
		a, err := parseAddr(s)
		if err != nil {
			return NIC{}, fmt.Errorf("NIC %d: %w", n.ID, err)
		}
		if a.IsValid() && !slices.Contains(n.Addresses, a) {
			n.Addresses = append(n.Addresses, a)
		}
	}
	return n, nil
}

func isYes(s string) bool { return strings.EqualFold(strings.TrimSpace(s), "YES") }

// parsePlaces reads a pool of named objects, such as clusters or zones, whose
// documents are <pool><element><ID/><NAME/>...<TEMPLATE/>
func parsePlaces(body []byte, pool, element string) (map[int]Place, error) {
	var x struct {
		XMLName xml.Name
		Objects []struct {
			XMLName  xml.Name
			ID       *int     `xml:"ID"`
			Name     string   `xml:"NAME"`
			Template xmlAttrs `xml:"TEMPLATE"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return nil, err
	}
	if x.XMLName.Local != pool {
		return nil, fmt.Errorf("no %s but a document <%s>", pool, x.XMLName.Local)
	}
	out := make(map[int]Place, len(x.Objects))
	for _, o := range x.Objects {
		if o.XMLName.Local != element || o.ID == nil {
			return nil, fmt.Errorf("%s has an element <%s>, or one without ID", pool, o.XMLName.Local)
		}
		out[*o.ID] = Place{Name: o.Name, Attributes: o.Template.singles}
	}
	return out, nil
}

// parseZoneID finds the zone of a front-end in its configuration.
func parseZoneID(body []byte) (int, error) {
	var x struct {
		Zone *int `xml:"FEDERATION>ZONE_ID"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return 0, err
	}
	if x.Zone == nil {
		return 0, errors.New("the configuration names no FEDERATION/ZONE_ID")
	}
	return *x.Zone, nil
}
