package onesim

import (
	_ "embed"
	"fmt"
	"net/netip"

	"sigs.k8s.io/yaml"
)

// Fixture describes objects to be made. They refer to each other by name, within one fixture or among those that
// exist already.
type Fixture struct {
	Users    []UserFixture    `json:"users,omitempty"`
	Hosts    []string         `json:"hosts,omitempty"`
	Networks []NetworkFixture `json:"networks,omitempty"`
	VMs      []VMFixture      `json:"vms,omitempty"`
	Routers  []RouterFixture  `json:"routers,omitempty"`
	Rules    []RuleFixture    `json:"rules,omitempty"`
}

// UserFixture is a user; the group is "users" when empty.
type UserFixture struct {
	Name     string `json:"name"`
	Password string `json:"password"`
	Group    string `json:"group,omitempty"`
}

// NetworkFixture is a network; its template needs no NAME, and VN_MAD is dummy when missing.
type NetworkFixture struct {
	Name     string `json:"name"`
	Owner    string `json:"owner,omitempty"`
	Template string `json:"template"`
}

// VMFixture is a VM; see VMSpec.
type VMFixture struct {
	Name     string       `json:"name"`
	Owner    string       `json:"owner,omitempty"`
	State    string       `json:"state,omitempty"`
	Host     string       `json:"host,omitempty"`
	NICs     []NICFixture `json:"nics,omitempty"`
	Template string       `json:"template,omitempty"`
}

// NICFixture is a NIC; see NICSpec.
type NICFixture struct {
	Network      string     `json:"network"`
	IP           netip.Addr `json:"ip,omitzero"`
	IP6          netip.Addr `json:"ip6,omitzero"`
	Alias        bool       `json:"alias,omitempty"`
	Floating     bool       `json:"floating,omitempty"`
	FloatingOnly bool       `json:"floatingOnly,omitempty"`
}

// RouterFixture is a virtual router; see VRouterSpec.
type RouterFixture struct {
	Name  string       `json:"name"`
	Owner string       `json:"owner,omitempty"`
	Host  string       `json:"host,omitempty"`
	NICs  []NICFixture `json:"nics"`
	VMs   []string     `json:"vms,omitempty"`
}

// RuleFixture gives a user rights on a network, or on all of a kind.
type RuleFixture struct {
	User    string   `json:"user"`
	Kind    string   `json:"kind,omitempty"`    // NET when empty
	Network string   `json:"network,omitempty"` // all of the kind when empty
	Rights  []string `json:"rights"`
}

//go:embed default.yaml
var defaultFixture []byte

// DefaultFixture is a small private datacenter: networks "private" and "public" in both families, user "k8s" with
// VMs node-1 to node-3, and virtual router "vr" with two VMs.
func DefaultFixture() Fixture {
	f, err := DecodeFixture(defaultFixture)
	if err != nil {
		panic("onesim: default.yaml: " + err.Error())
	}
	return f
}

// DecodeFixture reads YAML or JSON; an unknown key is an error.
func DecodeFixture(data []byte) (Fixture, error) {
	var f Fixture
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return Fixture{}, fmt.Errorf("fixture: %w", err)
	}
	return f, nil
}

// Load makes the objects of a fixture. What was made before an error stays.
func (s *Sim) Load(f Fixture) error {
	for _, u := range f.Users {
		if _, err := s.AddUser(u.Name, u.Password, u.Group); err != nil {
			return err
		}
	}
	for _, name := range f.Hosts {
		if _, err := s.AddHost(name); err != nil {
			return err
		}
	}
	for _, n := range f.Networks {
		if _, err := s.AddVNet(n.Owner, fmt.Sprintf("NAME = %q\n%s", n.Name, n.Template)); err != nil {
			return err
		}
	}
	for _, v := range f.VMs {
		if err := s.loadVM(v); err != nil {
			return err
		}
	}
	for _, r := range f.Routers {
		if err := s.loadRouter(r); err != nil {
			return err
		}
	}
	for _, r := range f.Rules {
		if err := s.loadRule(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) loadVM(v VMFixture) error {
	nics, host, err := s.resolve(v.NICs, v.Host)
	if err != nil {
		return fmt.Errorf("VM %q: %w", v.Name, err)
	}
	_, err = s.AddVM(VMSpec{Name: v.Name, Owner: v.Owner, State: v.State, Host: host, NICs: nics, Template: v.Template})
	return err
}

func (s *Sim) loadRouter(r RouterFixture) error {
	nics, host, err := s.resolve(r.NICs, r.Host)
	if err != nil {
		return fmt.Errorf("virtual router %q: %w", r.Name, err)
	}
	_, _, err = s.AddVRouter(VRouterSpec{Name: r.Name, Owner: r.Owner, Host: host, NICs: nics, VMs: r.VMs})
	return err
}

func (s *Sim) loadRule(r RuleFixture) error {
	kindName, id := r.Kind, -1
	if kindName == "" {
		kindName = kindNet.name
	}
	if r.Network != "" {
		var err error
		if id, err = s.networkID(r.Network); err != nil {
			return fmt.Errorf("rule for %q: %w", r.User, err)
		}
	}
	return s.Allow(r.User, kindName, id, r.Rights...)
}

// resolve turns names into ids; no host is the first one.
func (s *Sim) resolve(list []NICFixture, hostName string) ([]NICSpec, int, error) {
	var out []NICSpec
	for _, n := range list {
		id, err := s.networkID(n.Network)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, NICSpec{Network: id, IP: n.IP, IP6: n.IP6, Alias: n.Alias, Floating: n.Floating, FloatingOnly: n.FloatingOnly})
	}
	host, err := s.hostID(hostName)
	return out, host, err
}

// networkID finds a network by name, whoever owns it; the oldest wins.
func (s *Sim) networkID(name string) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range s.vnets.sorted() {
		if s.vnets.byID[id].name == name {
			return id, nil
		}
	}
	return 0, fmt.Errorf("network %q: %w", name, ErrNotFound)
}

func (s *Sim) hostID(name string) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if name == "" {
		return 0, nil
	}
	for _, id := range s.hosts.sorted() {
		if s.hosts.byID[id].name == name {
			return id, nil
		}
	}
	return 0, fmt.Errorf("host %q: %w", name, ErrNotFound)
}
