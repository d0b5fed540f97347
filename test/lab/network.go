package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
)

// buildNetwork makes the switch, the hosts and their links.
func (l *Lab) buildNetwork() error {
	if err := l.buildSwitch(); err != nil {
		return err
	}
	// Each host is a chain of system calls that mostly wait for the kernel.
	var g errgroup.Group
	g.SetLimit(4)
	g.Go(func() error { return l.buildControl() })
	g.Go(func() error { return l.buildInternet() })
	g.Go(func() error { return l.buildLAN() })
	for i := range l.options.Routers {
		g.Go(func() error { return l.buildRouter(i + 1) })
	}
	for i := range l.options.Nodes {
		g.Go(func() error { return l.buildNode(i + 1) })
	}
	return g.Wait()
}

// buildSwitch makes the namespace that holds the bridges and nothing else: no
// address, so that it never answers, and no packet filter over bridged frames.
func (l *Lab) buildSwitch() error {
	h, err := l.newHost("switch", false)
	if err != nil {
		return err
	}
	l.switches = h
	for _, s := range [][2]string{
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
	} {
		if err := h.Sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		// Absent where the kernel has no bridge netfilter: then nothing is to be done.
		key := "net/bridge/bridge-nf-call-" + name
		if _, err := h.ReadSysctl(key); err == nil {
			if err := h.Sysctl(key, "0"); err != nil {
				return err
			}
		}
	}
	var errs [3]error
	l.l2s = map[string]*l2{}
	l.l2s[Public], errs[0] = newL2(h.Namespace, Public, "pub", PublicV4, PublicV6)
	l.l2s[Private], errs[1] = newL2(h.Namespace, Private, "prv", PrivateV4, PrivateV6)
	l.l2s[Management], errs[2] = newL2(h.Namespace, Management, "mgm", MgmtV4)
	return errors.Join(errs[:]...)
}

// host makes a namespace and notes it under its name.
func (l *Lab) addHost(short string, forwarding bool) (*Host, error) {
	h, err := l.newHost(short, forwarding)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[short] = h
	return h, nil
}

func (l *Lab) buildControl() error {
	h, err := l.addHost("control", false)
	if err != nil {
		return err
	}
	l.control = h
	return l.l2s[Management].attach(h, "mgmt0", []netip.Addr{ControlAddr})
}

func (l *Lab) buildInternet() error {
	h, err := l.addHost("internet", false)
	if err != nil {
		return err
	}
	l.internet = h
	addrs := []netip.Addr{addr("203.0.113.1"), addr("2001:db8:113::1")}
	if err := l.l2s[Public].attach(h, "eth0", addrs); err != nil {
		return err
	}
	via := publicRouter(1)
	return errors.Join(h.route(PrivateV4, "eth0", via[0]), h.route(PrivateV6, "eth0", via[1]))
}

func (l *Lab) buildLAN() error {
	h, err := l.addHost("lan", false)
	if err != nil {
		return err
	}
	l.lan = h
	addrs := []netip.Addr{addr("10.20.0.250"), addr("fd00:20::250")}
	if err := l.l2s[Private].attach(h, "eth0", addrs); err != nil {
		return err
	}
	return h.defaultRoute("eth0", privateRouter(1))
}

func (l *Lab) buildRouter(i int) error {
	h, err := l.addHost(fmt.Sprintf("router-%d", i), true)
	if err != nil {
		return err
	}
	l.routers[i-1] = &Router{Host: h, lab: l, index: i}
	err = errors.Join(
		l.l2s[Public].attach(h, "eth0", publicRouter(i)),
		l.l2s[Private].attach(h, "eth1", privateRouter(i)),
		l.l2s[Management].attach(h, "mgmt0", mgmtRouter(i)))
	if err != nil {
		return err
	}
	return h.defaultRoute("eth0", []netip.Addr{addr("203.0.113.1"), addr("2001:db8:113::1")})
}

func (l *Lab) buildNode(i int) error {
	h, err := l.addHost(fmt.Sprintf("node-%d", i), true)
	if err != nil {
		return err
	}
	l.nodes[i-1] = newNode(l, h, i)
	err = errors.Join(
		l.l2s[Private].attach(h, "eth0", privateNode(i)),
		l.l2s[Management].attach(h, "mgmt0", mgmtNode(i)))
	if err != nil {
		return err
	}
	return l.nodes[i-1].buildRoutes()
}
