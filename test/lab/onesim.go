package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/onelb/onelb/test/onesim"
)

// Users of the simulated OpenNebula. OneUser has what manifests/opennebula/access.sh
// gives it, and no more: it is in a group without rights, may use the networks that
// addresses are taken from, within quotas, and owns the nodes' VMs.
const (
	OneUser     = "k8s"
	OnePassword = "k8spass123"
	OneGroup    = "kubernetes"
	// oneLeases is the quota on each network: more than there are addresses.
	oneLeases = 400
)

// OneSim is the lab's OpenNebula: the simulated front-end, which keeps its state
// while it is stopped, and the IDs of what the lab made in it.
type OneSim struct {
	*onesim.Sim
	PrivateVNet, PublicVNet int
	NodeVMs                 []int // node-1 first
	VirtualRouter           int
	RouterVMs               []int // router-1 first

	lab  *Lab
	mu   sync.Mutex // guards stop and done
	stop context.CancelFunc
	done chan error
}

// OneSimURL is the XML-RPC endpoint, seen from the management network.
func OneSimURL() string { return fmt.Sprintf("http://%s:%d/RPC2", ControlAddr, OneSimPort) }

// newOneSim makes the front-end with the datacenter's networks and machines, with
// the delays that were measured on a real one.
func newOneSim(l *Lab) (*OneSim, error) {
	sim, err := onesim.New(onesim.Options{Delays: onesim.MeasuredDelays, Latency: onesim.MeasuredLatency()})
	if err != nil {
		return nil, err
	}
	o := &OneSim{Sim: sim, lab: l}
	_, err1 := sim.AddHost("hypervisor-1")
	_, err2 := sim.AddUser(OneUser, OnePassword, OneGroup)
	if err := errors.Join(err1, err2, sim.Isolate(OneGroup)); err != nil {
		return nil, err
	}
	if err := o.addNetworks(); err != nil {
		return nil, err
	}
	return o, o.addMachines()
}

// addNetworks makes the two networks. The ranges of routers and nodes are full,
// so that whoever asks for any free address gets one of those meant for it.
func (o *OneSim) addNetworks() error {
	pairs := func(first []netip.Addr, size int) string {
		return fmt.Sprintf(`AR=[TYPE="IP4_6_STATIC",IP="%s",IP6="%s",PREFIX_LENGTH="64",SIZE="%d"]`+"\n", first[0], first[1], size)
	}
	pool := func(v4, v6 string) string {
		return fmt.Sprintf(`AR=[TYPE="IP4",IP="%s",SIZE="100"]`+"\n"+
			`AR=[TYPE="IP6_STATIC",IP6="%s",PREFIX_LENGTH="64",SIZE="100"]`+"\n", v4, v6)
	}
	routers, nodes := len(o.lab.routers), len(o.lab.nodes)
	var err error
	o.PrivateVNet, err = o.AddVNet("", vnetTemplate("private", PrivateV4, privateRouter(1))+
		pairs(privateRouter(1), routers)+pool("10.20.0.100", "fd00:20::100")+pairs(privateNode(1), nodes))
	if err != nil {
		return err
	}
	internet := []netip.Addr{addr("203.0.113.1"), addr("2001:db8:113::1")}
	o.PublicVNet, err = o.AddVNet("", vnetTemplate("public", PublicV4, internet)+
		pairs(publicRouter(1), routers)+pool("203.0.113.100", "2001:db8:113::100"))
	return err
}

// AddVNet makes a network. One of the administrator's the lab's user may use, as
// access.sh lets it.
func (o *OneSim) AddVNet(owner, text string) (int, error) {
	id, err := o.Sim.AddVNet(owner, text)
	if err != nil || owner != "" {
		return id, err
	}
	return id, errors.Join(o.Allow(OneUser, "NET", id, "USE"),
		o.Quota(OneUser, fmt.Sprintf(`NETWORK=[ID="%d",LEASES="%d"]`, id, oneLeases)))
}

func vnetTemplate(name string, v4 netip.Prefix, gateway []netip.Addr) string {
	return fmt.Sprintf(`NAME="%[1]s"
VN_MAD="dummy"
BRIDGE="br-%[1]s"
NETWORK_ADDRESS="%[2]s"
NETWORK_MASK="%[3]s"
GATEWAY="%[4]s"
GATEWAY6="%[5]s"
`, name, v4.Addr(), net.IP(ipNet(v4).Mask), gateway[0], gateway[1])
}

// addMachines makes a VM for each node and a virtual router with its instances.
func (o *OneSim) addMachines() error {
	for _, n := range o.lab.nodes {
		id, err := o.AddVM(onesim.VMSpec{
			Name: n.ShortName(), Owner: OneUser,
			NICs: []onesim.NICSpec{{Network: o.PrivateVNet, IP: n.Addrs(Private)[0]}},
		})
		if err != nil {
			return err
		}
		o.NodeVMs = append(o.NodeVMs, id)
	}
	spec := onesim.VRouterSpec{
		Name: RouterName,
		NICs: []onesim.NICSpec{{Network: o.PublicVNet}, {Network: o.PrivateVNet}},
	}
	for _, r := range o.lab.routers {
		spec.VMs = append(spec.VMs, r.ShortName())
	}
	var err error
	o.VirtualRouter, o.RouterVMs, err = o.AddVRouter(spec)
	return err
}

// start listens on the control plane's host.
func (o *OneSim) start() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stop != nil {
		return errors.New("onesim is running already")
	}
	listener, err := o.lab.control.Listen("tcp", fmt.Sprintf("%s:%d", ControlAddr, OneSimPort))
	if err != nil {
		return fmt.Errorf("start onesim: %w", err)
	}
	ctx, cancel := context.WithCancel(o.lab.ctx)
	done := make(chan error, 1)
	o.stop, o.done = cancel, done
	o.lab.goInside(func(context.Context) { done <- o.Serve(ctx, listener) })
	return nil
}

// startOneSim makes the front-end and starts it.
func (l *Lab) startOneSim() error {
	one, err := newOneSim(l)
	if err != nil {
		return fmt.Errorf("make onesim: %w", err)
	}
	l.one = one
	return one.start()
}

// OneSim is the simulated OpenNebula.
func (l *Lab) OneSim() *OneSim { return l.one }

// StartOneSim starts the front-end again, with the state it had.
func (l *Lab) StartOneSim() error { return l.one.start() }

// StopOneSim ends the front-end; calls under way are cut off.
func (l *Lab) StopOneSim() error {
	o := l.one
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stop == nil {
		return nil
	}
	o.stop()
	o.stop = nil
	return <-o.done
}
