package node

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// Defaults of a BGPPeer.
const (
	defaultHoldTime     = 90 * time.Second
	defaultConnectRetry = 10 * time.Second
	defaultRestartTime  = 120 * time.Second
	defaultBFDInterval  = 300 * time.Millisecond
	defaultBFDMultiple  = 3
)

// globalOf is what all sessions of this node share.
func globalOf(n *network, node string) bgp.Global {
	g := bgp.Global{ASN: uint32(n.Config.ASN), RouterID: routerID(n.Own, node)}
	if n.Config.ListenPort != nil {
		g.ListenPort = uint16(*n.Config.ListenPort)
	}
	for _, a := range n.Own {
		f := 0
		if a.Is6() {
			f = 1
		}
		if !g.NextHops[f].IsValid() {
			g.NextHops[f] = a
		}
	}
	return g
}

// routerID is the node's IPv4 address, and 32 bits made of its name if it has none.
func routerID(own []netip.Addr, node string) netip.Addr {
	for _, a := range own {
		if a.Is4() {
			return a
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(node))
	sum := h.Sum(nil)
	sum[0] |= 1 // not 0.0.0.0
	return netip.AddrFrom4([4]byte(sum))
}

// surroundings are what peers depend on besides the API.
type surroundings struct {
	// passwords is the directory with the keys of the Secret.
	passwords string
	// addresses are those of this machine.
	addresses func() ([]net.Addr, error)
	// router is the one at the other end of an interface.
	router func(device string) (netip.Addr, error)
	// vrf reports what is wrong with a device that should be a VRF's.
	vrf func(device string) error
}

// devicesOf are the interfaces at whose other end peers are, sorted; none without BGP.
func devicesOf(n *network) (out []string) {
	if n.Config == nil {
		return nil
	}
	for _, p := range n.Peers {
		if p.Spec.Interface != "" {
			out = append(out, p.Spec.Interface)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// peersOf are the peers of this node. What is wrong with one is its Problem.
func (s surroundings) peersOf(n *network, g bgp.Global) []bgp.Peer {
	var out []bgp.Peer
	m := s.own()
	for _, p := range n.Peers {
		out = append(out, s.peer(p, g, m, out))
	}
	return out
}

// ownAddresses are those of this machine, read once for all peers: with kube-proxy
// in IPVS mode it has one for each Service.
type ownAddresses struct {
	prefixes []netip.Prefix
	err      error // of reading them
}

func (s surroundings) own() (m ownAddresses) {
	all, err := s.addresses()
	m.err = err
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		bits, _ := n.Mask.Size()
		if ok {
			m.prefixes = append(m.prefixes, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return m
}

func (s surroundings) peer(n neighbor, g bgp.Global, m ownAddresses, before []bgp.Peer) bgp.Peer {
	spec := n.Spec
	p := bgp.Peer{
		Name: n.Name, Port: uint16(cmp.Or(spec.Port, 179)), ASN: uint32(spec.ASN),
		HoldTime: duration(spec.HoldTime, defaultHoldTime), ConnectRetryTime: duration(spec.ConnectRetryTime, defaultConnectRetry),
	}
	p.KeepaliveTime = duration(spec.KeepaliveTime, max(p.HoldTime/3, time.Second)).Truncate(time.Second)
	if spec.LocalASN != nil {
		p.LocalASN = uint32(*spec.LocalASN)
	}
	if spec.Multihop != nil {
		p.Multihop = uint8(*spec.Multihop)
	}
	if e := spec.GracefulRestart.Enabled; e == nil || *e {
		p.RestartTime = duration(spec.GracefulRestart.RestartTime, defaultRestartTime)
	}
	if b := spec.BFD; b != nil {
		p.BFDInterval, p.BFDMultiplier = duration(b.Interval, defaultBFDInterval), uint8(cmp.Or(b.Multiplier, defaultBFDMultiple))
	}
	err := errors.Join(s.address(&p, spec, before), m.source(&p, spec), s.device(&p, spec), s.password(&p, spec), families(&p, spec, g))
	if err != nil {
		p.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return p
}

func duration(d *metav1.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration
}

func (s surroundings) address(p *bgp.Peer, spec v1alpha1.BGPPeerSpec, before []bgp.Peer) (err error) {
	if spec.Interface != "" {
		if p.Address, err = s.router(spec.Interface); err != nil {
			return fmt.Errorf("spec.interface: %w", err)
		}
	} else if p.Address, err = netip.ParseAddr(spec.Address); err != nil {
		return fmt.Errorf("spec.address: %w", err)
	}
	for _, b := range before {
		switch {
		case b.Address == p.Address:
			return fmt.Errorf("BGPPeer %s has the same address", b.Name)
		case b.Address.WithZone("") == p.Address.WithZone(""): // the export policy knows no zones
			return fmt.Errorf("BGPPeer %s has the same link-local address on interface %s: a node can have one of them", b.Name, b.Address.Zone())
		}
	}
	return nil
}

// source looks for the address among the machine's, and whether the peer is near. Peers
// that name no address do without the machine's.
func (m ownAddresses) source(p *bgp.Peer, spec v1alpha1.BGPPeerSpec) (err error) {
	p.Far = p.Address.Zone() == "" && m.err == nil && !slices.ContainsFunc(m.prefixes, func(n netip.Prefix) bool { return n.Contains(p.Address) })
	if spec.SourceAddress == "" {
		return nil
	}
	if p.Source, err = netip.ParseAddr(spec.SourceAddress); err != nil {
		return fmt.Errorf("spec.sourceAddress: %w", err)
	}
	switch {
	case m.err != nil:
		return fmt.Errorf("read the node's addresses: %w", m.err)
	case !slices.ContainsFunc(m.prefixes, func(n netip.Prefix) bool { return n.Addr() == p.Source }):
		return fmt.Errorf("spec.sourceAddress: this node has no address %s", p.Source)
	}
	return nil
}

func (s surroundings) device(p *bgp.Peer, spec v1alpha1.BGPPeerSpec) error {
	if spec.VRF == "" {
		return nil
	}
	p.VRF = spec.VRF
	if err := s.vrf(spec.VRF); err != nil {
		return fmt.Errorf("spec.vrf: %w", err)
	}
	return nil
}

// password reads the key of the Secret, which may be changed or appear later.
func (s surroundings) password(p *bgp.Peer, spec v1alpha1.BGPPeerSpec) error {
	if spec.PasswordKey == "" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(s.passwords, filepath.Base(spec.PasswordKey)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("spec.passwordKey: the Secret onelb-system/onelb-bgp has no key %s", spec.PasswordKey)
	case err != nil:
		return fmt.Errorf("spec.passwordKey: %w", err)
	}
	p.Password = strings.TrimRight(string(content), "\n")
	if p.Password == "" || len(p.Password) > maxPassword {
		return fmt.Errorf("spec.passwordKey: the password of key %s has %d bytes: 1 to %d can be used", spec.PasswordKey, len(p.Password), maxPassword)
	}
	return nil
}

// maxPassword is the kernel's TCP_MD5SIG_MAXKEYLEN.
const maxPassword = 80

func families(p *bgp.Peer, spec v1alpha1.BGPPeerSpec, g bgp.Global) error {
	own := v1alpha1.BGPFamilyIPv4
	if p.Address.Is6() {
		own = v1alpha1.BGPFamilyIPv6
	}
	unnumbered := spec.Interface != ""
	if len(spec.Families) == 0 {
		p.IPv4, p.IPv6 = unnumbered || own == v1alpha1.BGPFamilyIPv4, unnumbered || own == v1alpha1.BGPFamilyIPv6
		return nil
	}
	p.IPv4, p.IPv6 = slices.Contains(spec.Families, v1alpha1.BGPFamilyIPv4), slices.Contains(spec.Families, v1alpha1.BGPFamilyIPv6)
	for i, f := range []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv4, v1alpha1.BGPFamilyIPv6} {
		if slices.Contains(spec.Families, f) && f != own && !unnumbered && !g.NextHops[i].IsValid() {
			return fmt.Errorf("spec.families: this node has no InternalIP of family %s, which would be the next hop", f)
		}
	}
	return nil
}
