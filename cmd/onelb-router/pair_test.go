package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/ns"
)

// pair is a router of two instances with keepalived:
//
//	client .1 -- 203.0.113.0/24 -- .2 r1 .2 -- 10.20.0.0/24 -- be1 .11, be2 .12
//	                            `- .3 r2 .3 -'
//
// keepalived moves the nodes' gateway 10.20.0.1, fd00:20::1.
type pair struct {
	*lan
	keepalived debian.Program
	programs   map[string][]*exec.Cmd // of an instance
}

func newPair(t *testing.T) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := &pair{lan: &lan{t: t, spaces: map[string]*ns.Namespace{}, dir: t.TempDir()}, programs: map[string][]*exec.Cmd{}}
	cache, err := kubebin.CacheDir()
	p.must(err)
	p.keepalived, err = debian.Find(t.Context(), cache, "keepalived", "keepalived")
	p.must(err)
	for _, name := range []string{"client", "outer", "switch", "r1", "r2", "be1", "be2"} {
		full := lanPrefix + name
		p.must(ns.DeleteNamed(full)) // from an interrupted run
		n, err := ns.New(full)
		p.must(err)
		p.spaces[name] = n
		t.Cleanup(func() { _ = n.Delete() })
	}
	for _, name := range []string{"outer", "switch"} {
		p.must(p.spaces[name].Do(func() error {
			b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
			if err := netlink.LinkAdd(b); err != nil {
				return err
			}
			return netlink.LinkSetUp(b)
		}))
		for _, s := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
			_ = p.spaces[name].Sysctl(s, "0") // absent where the bridge does not filter
		}
	}
	p.join("client", "eth0", "outer")
	p.address("client", "eth0", "203.0.113.1/24", "2001:db8:113::1/64")
	for i, name := range []string{"r1", "r2"} {
		for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			p.must(p.spaces[name].Sysctl(s, "1"))
		}
		p.join(name, "eth0", "outer")
		p.join(name, "eth1", "switch")
		p.address(name, "eth0", fmt.Sprintf("203.0.113.%d/24", 2+i), fmt.Sprintf("2001:db8:113::%d/64", 2+i))
		p.address(name, "eth1", fmt.Sprintf("10.20.0.%d/24", 2+i), fmt.Sprintf("fd00:20::%d/64", 2+i))
	}
	for name, host := range map[string]string{"be1": "11", "be2": "12"} {
		p.join(name, "eth0", "switch")
		p.address(name, "eth0", "10.20.0."+host+"/24", "fd00:20::"+host+"/64")
		p.route(name, "10.20.0.1")
		p.route(name, "fd00:20::1")
		p.backend(name, 8080)
	}
	p.certificates()
	return p
}

// join plugs an interface into a switch.
func (p *pair) join(name, as, into string) {
	p.t.Helper()
	port := name + "-" + as
	p.link(name, as, into, port)
	p.up(into, port, "br0")
}

// boot starts keepalived and the agent on an instance, as after the power came back.
func (p *pair) boot(name string, priority int) {
	p.t.Helper()
	conf := p.path(name + ".conf")
	p.must(os.WriteFile(conf, []byte(fmt.Sprintf(`global_defs {
	vrrp_version 3
	script_user root
	enable_script_security
}
vrrp_instance edge {
	state BACKUP
	nopreempt
	interface eth1
	virtual_router_id 51
	priority %d
	advert_int 0.5
	virtual_ipaddress {
		10.20.0.1/24 dev eth1
	}
	virtual_ipaddress_excluded {
		fd00:20::1/64 dev eth1
	}
	notify_backup "%[2]s --let-go"
	notify_fault "%[2]s --let-go"
	notify_stop "%[2]s --let-go"
}
`, priority, p.letGo())), 0o600))
	file := func(what string) string { return p.path(name + "." + what) }
	p.spawn(name, p.keepalived.Env(), p.keepalived.Path, "-n", "-l", "-P", "-f", conf, "-p", file("pid"), "-r", file("vrrp.pid"))
	other := map[string]string{"r1": "10.20.0.3:9443", "r2": "10.20.0.2:9443"}[name]
	p.spawn(name, append(os.Environ(), asProgram+"=1"), os.Args[0], "--name=edge", "--listen=:9443", "--tls-cert="+p.path("router.crt"),
		"--tls-key="+p.path("router.key"), "--tls-client-ca="+p.path("ca.crt"), "--state-dir="+p.path("state-"+name),
		"--metrics-address=127.0.0.1:9912", "--floating-addresses=10.20.0.1,fd00:20::1", "--peers="+other, "--v=2")
	p.eventually(name+" is ready", func() bool {
		s, err := p.get(name, "127.0.0.1:9912", "/readyz")
		return err == nil && s == "ok\n"
	})
}

func (p *pair) spawn(name string, env []string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = p.t.Output(), p.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.must(p.spaces[name].Do(cmd.Start))
	p.programs[name] = append(p.programs[name], cmd)
	p.t.Cleanup(func() { end(cmd) })
}

// end kills a program with its children.
func end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
}

// letGo is a program for keepalived that is onelb-router.
func (p *pair) letGo() string {
	p.t.Helper()
	program := p.path("onelb-router")
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", asProgram, os.Args[0])
	p.must(os.WriteFile(program, []byte(script), 0o700))
	return program
}

// powerOff cuts an instance off and ends all that ran; nothing of it is left for
// the next boot but the disk.
func (p *pair) powerOff(name string) {
	p.t.Helper()
	p.links(name, false)
	for _, cmd := range p.programs[name] {
		end(cmd)
	}
	p.programs[name] = nil
	p.run(name, "nft", "flush", "ruleset")
	p.must(p.spaces[name].Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	p.must(p.spaces[name].Do(func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range list {
			switch a.IP.String() {
			case vip4, vip6, "10.20.0.1", "fd00:20::1":
				link, err := netlink.LinkByIndex(a.LinkIndex)
				if err != nil {
					return err
				}
				if err := netlink.AddrDel(link, &a); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

func (p *pair) links(name string, up bool) {
	p.t.Helper()
	p.must(p.spaces[name].Do(func() error {
		for _, as := range []string{"eth0", "eth1"} {
			link, err := netlink.LinkByName(as)
			if err != nil {
				return err
			}
			set := netlink.LinkSetDown
			if up {
				set = netlink.LinkSetUp
			}
			if err := set(link); err != nil {
				return err
			}
		}
		return nil
	}))
	if up { // an interface that was down has lost its IPv6 addresses
		host := map[string]string{"r1": "2", "r2": "3"}[name]
		p.address(name, "eth0", "2001:db8:113::"+host+"/64")
		p.address(name, "eth1", "fd00:20::"+host+"/64")
	}
}

// both is a push client of both instances.
func (p *pair) both() *router.Client {
	p.t.Helper()
	c, err := router.NewClient(router.ClientOptions{
		Router: "edge", Endpoints: []string{"203.0.113.2:9443", "203.0.113.3:9443"}, Cluster: "lab", Identity: "uid-1", Token: 1,
		CAFile: p.path("ca.crt"), CertFile: p.path("client.crt"), KeyFile: p.path("client.key"),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return p.spaces["client"].DialContext(ctx, "tcp", address)
		},
	})
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	p.t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// masters are the instances that say so.
func masters(c *router.Client) string {
	var out []string
	for i, s := range c.State().Instances {
		if s.Master {
			out = append(out, fmt.Sprintf("r%d", i+1))
		}
	}
	return strings.Join(out, " ")
}

// holds reports whether an instance has both public addresses, or neither.
func (p *pair) holds(name string, want bool) bool {
	out := p.run(name, "ip", "address", "show", "dev", "eth0")
	return strings.Contains(out, vip4+"/32") == want && strings.Contains(out, vip6+"/128") == want
}

// standing is a connection that stays.
type standing struct {
	net.Conn
	network, backend string
}

// ask asks over the connection for as long as it takes; UDP questions are repeated.
func (s *standing) ask() (string, error) {
	deadline := time.Now().Add(30 * time.Second)
	if s.network == "udp" {
		b := make([]byte, 1500)
		for {
			if _, err := s.Write([]byte("?")); err != nil {
				return "", err
			}
			_ = s.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := s.Read(b)
			if err == nil || time.Now().After(deadline) {
				return string(b[:n]), err
			}
		}
	}
	_ = s.SetDeadline(deadline)
	if _, err := fmt.Fprint(s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	return string(b), err
}

// stand opens connections of both protocols and families.
func (p *pair) stand(each int) []*standing {
	p.t.Helper()
	var all []*standing
	for _, address := range []string{vip4 + ":8765", "[" + vip6 + "]:8765"} {
		for _, network := range []string{"tcp", "udp"} {
			for range each {
				all = append(all, p.open(network, address))
			}
		}
	}
	p.alive(all, "at first")
	return all
}

func (p *pair) open(network, address string) *standing {
	p.t.Helper()
	conn, err := p.spaces["client"].DialContext(p.t.Context(), network, address)
	p.must(err)
	p.t.Cleanup(func() { _ = conn.Close() })
	return &standing{Conn: conn, network: network}
}

// routed has be1 hold two more addresses, which are routed to it, and returns connections
// to them. The instances hide what the backends send behind their own addresses.
func (p *pair) routed(c *router.Client, d *router.Document) []*standing {
	p.t.Helper()
	p.address("be1", "eth0", "203.0.113.110/32")
	p.run("be1", "ip", "address", "add", "2001:db8:113::110/128", "dev", "eth0", "nodad", "preferred_lft", "0") // no source of other replies
	for address, group := range map[string]string{"203.0.113.110": "nodes4", "2001:db8:113::110": "nodes6"} {
		d.Frontends = append(d.Frontends, router.Frontend{
			Address: netip.MustParseAddr(address), Protocol: router.TCP, Port: 8080, BackendPort: 8080,
			Service: "default/routed", Group: group, SNAT: router.SNATNever, Routed: true,
		})
	}
	p.set(c, *d)
	for _, name := range []string{"r1", "r2"} {
		p.hide(name)
	}
	all := []*standing{p.open("tcp", "203.0.113.110:8080"), p.open("tcp", "[2001:db8:113::110]:8080")}
	p.alive(all, "at first")
	return all
}

// proxies reports whether an instance answers for both of these addresses, or for neither.
func (p *pair) proxies(name string, want bool) bool {
	out := p.run(name, "ip", "-4", "neigh", "show", "proxy") + p.run(name, "ip", "-6", "neigh", "show", "proxy")
	return strings.Contains(out, "203.0.113.110 ") == want && strings.Contains(out, "2001:db8:113::110 ") == want
}

func (p *pair) hide(name string) {
	p.t.Helper()
	p.run(name, "nft", "add table inet hide; add chain inet hide out { type nat hook postrouting priority srcnat; }; add rule inet hide out oifname eth0 masquerade")
}

// alive asks over each, and wants the answer of the same backend as ever.
func (p *pair) alive(all []*standing, when string) {
	p.t.Helper()
	for _, s := range all {
		got, err := s.ask()
		if err != nil {
			p.t.Fatalf("%s: %s connection to %s: %v", when, s.network, s.RemoteAddr(), err)
		}
		if s.backend == "" {
			s.backend = got
		}
		if got != s.backend {
			p.t.Errorf("%s: %s connection to %s is with %q, was with %q", when, s.network, s.RemoteAddr(), got, s.backend)
		}
	}
}

// copied waits until an instance has the connections of its peer. They carry data
// meanwhile, since the kernel calls UDP ones assured only after some seconds.
func (p *pair) copied(name string, all []*standing) {
	p.t.Helper()
	p.eventually(fmt.Sprintf("%s has %d copies", name, len(all)), func() bool {
		p.alive(all, "while they are copied to "+name)
		metrics, err := p.get(name, "127.0.0.1:9912", "/metrics")
		for line := range strings.Lines(metrics) {
			var got float64
			if strings.HasPrefix(line, "onelb_router_peer_connections{") {
				_, _ = fmt.Sscanf(line[strings.LastIndex(line, " ")+1:], "%g", &got)
				return err == nil && got == float64(len(all))
			}
		}
		return false
	})
}

// TestPair: addresses and connections follow keepalived to the other instance, and
// the one that returns takes nothing back.
func TestPair(t *testing.T) {
	p := newPair(t)
	p.boot("r1", 110)
	p.boot("r2", 100)
	c := p.both()
	p.eventually("one is the master", func() bool { return masters(c) == "r1" || masters(c) == "r2" })
	first := masters(c)
	second := map[string]string{"r1": "r2", "r2": "r1"}[first]
	d := front("default/web", vip4, vip6, 8765, 8080)
	for i := range d.Groups {
		d.Groups[i].Check = nil
	}
	p.set(c, d)
	p.eventually("the master alone has the addresses", func() bool { return p.holds(first, true) && p.holds(second, false) })

	all := p.stand(6)
	p.copied(second, all)
	routed := p.routed(c, &d) // nobody has to copy these

	p.powerOff(first)
	p.eventually("the other one takes over", func() bool { return masters(c) == second })
	p.alive(all, "after the failover")
	p.alive(routed, "after the failover")
	if got := p.spread("client", "tcp", vip4+":8765", 20); len(got) != 2 {
		t.Errorf("new connections after the failover: %v", got)
	}

	// It returns, and takes nothing back.
	p.links(first, true)
	p.hide(first)
	p.boot(first, map[string]int{"r1": 110, "r2": 100}[first])
	p.copied(first, all)
	if got := masters(c); got != second || !p.holds(first, false) || !p.holds(second, true) {
		t.Errorf("after the return the master is %q, was %q", got, second)
	}
	p.alive(all, "after the return")

	// The master's agent dies for good: its kernel goes on, and it is told.
	agent := p.programs[second][1]
	end(agent)
	p.eventually("the dead agent is told", func() bool {
		meaning, _ := c.State().MasterProblem()
		return strings.Contains(meaning, "which was, does not answer")
	})
	p.alive(all, "while the master's agent is dead")
	p.alive(routed, "while the master's agent is dead")
	if got := p.spread("client", "tcp", vip4+":8765", 20); len(got) != 2 {
		t.Errorf("new connections while the master's agent is dead: %v", got)
	}
	if !p.holds(second, true) || !p.holds(first, false) {
		t.Error("the addresses are not where they were while the master's agent is dead")
	}
	d.Frontends = append(d.Frontends, front("default/late", "203.0.113.101", "2001:db8:113::101", 80, 8080).Frontends...)
	generation := c.Set(d)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := c.Wait(ctx, generation); !errors.Is(err, router.ErrNoMaster) {
		t.Errorf("a change that does not reach the master: %v", err)
	}

	// keepalived gives up there: nobody is left to let go but keepalived's own script.
	for _, cmd := range p.programs[second][:1] {
		p.must(cmd.Process.Signal(syscall.SIGTERM))
	}
	p.eventually("the other one has all", func() bool {
		return masters(c) == first && p.holds(first, true) && p.holds(second, false) && p.proxies(first, true) && p.proxies(second, false)
	})
	p.set(c, d)
	p.alive(all, "after the dead agent's machine gave up")
	p.alive(routed, "after the dead agent's machine gave up")
	_ = p.programs[second][0].Wait() // its end takes a while, and the next one would find it
	p.programs[second] = nil
	p.boot(second, map[string]int{"r1": 110, "r2": 100}[second])
	p.copied(second, all)
	first, second = second, first // names the master of now second again

	// And the other way, by the end of keepalived alone: the agent lets go at once.
	for _, cmd := range p.programs[second][:1] {
		p.must(cmd.Process.Signal(syscall.SIGTERM))
	}
	p.eventually("it goes back in order", func() bool {
		return masters(c) == first && p.holds(first, true) && p.holds(second, false) && p.proxies(first, true) && p.proxies(second, false)
	})
	p.alive(all, "after the way back")
	p.alive(routed, "after the way back")
}
