package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/ns"
)

// routerPair is a router of two instances with keepalived, which moves the backends'
// gateway 10.20.0.1:
//
//	client .1 -- 203.0.113.0/24 -- .2 r1 .2 -- 10.20.0.0/24 -- be1 .11, be2 .12
//	                            `- .3 r2 .3 -'
type routerPair struct {
	path
	spaces     map[string]*ns.Namespace
	dir        string
	keepalived debian.Program
	programs   map[string][]*exec.Cmd
	client     *router.Client
}

const pairPort = 8080

// measurePair loses the master's machine, each time of a new pair.
func measurePair(ctx context.Context, b *bench) error {
	var detection []float64
	for i := range b.times(12) {
		detected, err := b.failover(ctx)
		if err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		detection = append(detection, detected)
	}
	d := newRow("", "", detection, nil)
	b.note("router_failover", "advert_int 0.5: the other instance had the floating address after %g ms (median; %g to %g)", d.Median, d.Min, d.Max)
	b.note("router_failover_broken_connections", "each with a request every 2 s before and after")
	return nil
}

// failover returns how long keepalived took.
func (b *bench) failover(ctx context.Context) (detected float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	p := &routerPair{spaces: map[string]*ns.Namespace{}, programs: map[string][]*exec.Cmd{}}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.build(ctx, b.opts.Progress); err != nil {
		return 0, err
	}
	at, err := p.serve(ctx)
	if err != nil {
		return 0, err
	}
	master, other, err := p.roles(ctx)
	if err != nil {
		return 0, err
	}
	all, err := gather(ctx, p.spaces["client"], crowdSize, at...)
	if err != nil {
		return 0, err
	}
	if err := p.copied(ctx, other, crowdSize); err != nil {
		_, _, example := all.stop()
		return 0, errors.Join(err, example)
	}
	probe := lab.Probe(ctx, probeEvery, func(ctx context.Context) error {
		conn, err := p.spaces["client"].DialContext(ctx, "tcp", at[0].String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err := pause(ctx, calm); err != nil {
		return 0, err
	}
	begin := time.Now()
	moved, err := p.lose(ctx, master, other)
	if err == nil {
		err = errors.Join(probe.WaitAnswer(ctx), pause(ctx, afterFault))
	}
	seen := probe.Stop()
	broken, asked, example := all.stop()
	if err != nil {
		return 0, err
	}
	if len(seen.Outages) == 0 || !seen.Longest.Begin.Add(seen.Longest.Duration).After(begin) {
		return 0, fmt.Errorf("the loss of %s was not noticed: %v", master, seen)
	}
	back := seen.Longest.Begin.Add(seen.Longest.Duration)
	b.say("  %s lost: keepalived %.0f ms, first answer %.0f ms, %d of %d connections broken after %d requests (%v)",
		master, ms(moved.Sub(begin)), ms(back.Sub(begin)), broken, crowdSize, asked, example)
	b.add("router_failover", max(ms(back.Sub(moved)), 0))
	b.add("router_failover_broken_connections", float64(broken))
	return ms(moved.Sub(begin)), nil
}

// lose cuts an instance off and kills what runs there. It returns when the other one
// got the floating address.
func (p *routerPair) lose(ctx context.Context, master, other string) (time.Time, error) {
	updates, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	defer close(done)
	err := p.spaces[other].Do(func() error { return netlink.AddrSubscribe(updates, done) })
	if err != nil {
		return time.Time{}, fmt.Errorf("watch addresses of %s: %w", other, err)
	}
	err = p.spaces[master].Do(func() error {
		for _, as := range []string{"eth0", "eth1"} {
			link, err := netlink.LinkByName(as)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetDown(link); err != nil {
				return err
			}
		}
		return nil
	})
	p.end(master)
	if err != nil {
		return time.Time{}, err
	}
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return time.Time{}, fmt.Errorf("watch addresses of %s: the kernel's messages ended", other)
			}
			if u.NewAddr && u.LinkAddress.IP.String() == "10.20.0.1" {
				return time.Now(), nil
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for keepalived on %s: %w", other, context.Cause(ctx))
		}
	}
}

// build makes the machines and starts both instances.
func (p *routerPair) build(ctx context.Context, progress io.Writer) (err error) {
	if p.dir, err = os.MkdirTemp("", "onelb-bench-"); err != nil {
		return err
	}
	p.undo = append(p.undo, func() error { return os.RemoveAll(p.dir) })
	cache, err := kubebin.CacheDir()
	if err != nil {
		return err
	}
	if p.keepalived, err = debian.Find(ctx, cache, "keepalived", "keepalived"); err != nil {
		return err
	}
	if err := kubebin.Programs(ctx, p.dir, false, progress, "cmd/onelb-router"); err != nil {
		return err
	}
	for _, name := range []string{"client", "outer", "inner", "r1", "r2", "be1", "be2"} {
		full := "onelb-bench-p-" + name
		if err := ns.DeleteNamed(full); err != nil { // from an interrupted run
			return err
		}
		n, err := ns.New(full)
		if err != nil {
			return err
		}
		p.spaces[name] = n
		p.undo = append(p.undo, n.Delete)
	}
	if err := errors.Join(p.bridge("outer"), p.bridge("inner"), p.machines(), p.certificates()); err != nil {
		return err
	}
	return errors.Join(p.boot(ctx, "r1", 110, "10.20.0.3"), p.boot(ctx, "r2", 100, "10.20.0.2"))
}

func (p *routerPair) machines() error {
	errs := []error{p.plug("client", "eth0", "outer", "203.0.113.1/24"), p.spaces["client"].Sysctl("net/ipv4/ip_local_port_range", "1024 65535")}
	for name, host := range map[string]string{"r1": "2", "r2": "3"} {
		errs = append(errs, p.spaces[name].Sysctl("net/ipv4/ip_forward", "1"), p.spaces[name].Sysctl("net/ipv6/conf/all/forwarding", "1"),
			p.plug(name, "eth0", "outer", "203.0.113."+host+"/24"), p.plug(name, "eth1", "inner", "10.20.0."+host+"/24"))
	}
	for name, host := range map[string]string{"be1": "11", "be2": "12"} {
		errs = append(errs, p.plug(name, "eth0", "inner", "10.20.0."+host+"/24"), p.route(p.spaces[name], "10.20.0.1"))
		stop, err := answerOn(p.spaces[name], pairPort)
		if err == nil {
			p.undo = append(p.undo, stop)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *routerPair) bridge(in string) error {
	return p.spaces[in].Do(func() error {
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		return errors.Join(netlink.LinkAdd(b), netlink.LinkSetUp(b))
	})
}

// plug connects an interface to a bridge.
func (p *routerPair) plug(name, as, into, prefix string) error {
	port := name + "-" + as
	err := p.spaces[name].Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: as}, PeerName: port, PeerNamespace: netlink.NsFd(p.spaces[into].FD())})
	})
	if err != nil {
		return fmt.Errorf("link %s %s: %w", name, as, err)
	}
	err = p.spaces[into].Do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(link, bridge), netlink.LinkSetUp(link))
	})
	return errors.Join(err, p.address(p.spaces[name], as, prefix))
}

func (p *routerPair) certificates() error {
	ca, err := pki.NewAuthority("bench", pki.Validity{})
	if err != nil {
		return err
	}
	server, err := ca.Router(lab.RouterName, pki.Validity{})
	if err != nil {
		return err
	}
	client, err := ca.Client(lab.ClusterName, pki.Validity{})
	if err != nil {
		return err
	}
	var errs []error
	for name, data := range map[string][]byte{
		"ca.crt": ca.PEM.Cert, "router.crt": server.Cert, "router.key": server.Key, "client.crt": client.Cert, "client.key": client.Key,
	} {
		errs = append(errs, os.WriteFile(p.file(name), data, 0o600))
	}
	return errors.Join(errs...)
}

func (p *routerPair) file(name string) string { return filepath.Join(p.dir, name) }

// boot starts keepalived and the agent on an instance.
func (p *routerPair) boot(ctx context.Context, name string, priority int, other string) error {
	conf := p.file(name + ".conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, `global_defs {
	vrrp_version 3
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
}
`, priority), 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(
		p.spawn(name, p.keepalived.Env(), p.keepalived.Path, "-n", "-l", "-P", "-f", conf, "-p", p.file(name+".pid"), "-r", p.file(name+".vrrp.pid")),
		p.spawn(name, os.Environ(), p.file("onelb-router"), "--name="+lab.RouterName, "--listen=:9443", "--tls-cert="+p.file("router.crt"), "--tls-key="+p.file("router.key"),
			"--tls-client-ca="+p.file("ca.crt"), "--state-dir="+p.file("state-"+name), "--metrics-address=127.0.0.1:9912",
			"--floating-addresses=10.20.0.1", "--peers="+other+":9443"))
	if err != nil {
		return err
	}
	return until(ctx, name, func(ctx context.Context) error { _, err := p.metrics(ctx, name, "/readyz"); return err })
}

func (p *routerPair) spawn(name string, env []string, args ...string) error {
	out, err := os.Create(p.file(name + "-" + filepath.Base(args[0]) + ".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // ours; ended by end
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.spaces[name].Do(cmd.Start); err != nil {
		return errors.Join(err, out.Close())
	}
	p.programs[name] = append(p.programs[name], cmd)
	p.undo = append(p.undo, func() error { p.end(name); return out.Close() })
	return nil
}

// end kills what runs on an instance, children included.
func (p *routerPair) end(name string) {
	for _, cmd := range p.programs[name] {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
	p.programs[name] = nil
}

// serve has both instances forward 20 frontends.
func (p *routerPair) serve(ctx context.Context) ([]netip.AddrPort, error) {
	var err error
	p.client, err = router.NewClient(router.ClientOptions{
		Router: lab.RouterName, Endpoints: []string{"203.0.113.2:9443", "203.0.113.3:9443"}, Cluster: lab.ClusterName, Identity: "bench", Token: 1,
		CAFile: p.file("ca.crt"), CertFile: p.file("client.crt"), KeyFile: p.file("client.key"),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return p.spaces["client"].DialContext(ctx, "tcp", address)
		},
	})
	if err != nil {
		return nil, err
	}
	// What it would log is in the figures.
	running, cancel := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), klog.Logger{}))
	ended := make(chan error, 1)
	go func() { ended <- p.client.Run(running) }()
	p.undo = append(p.undo, func() error { cancel(); return <-ended })
	d := router.Document{Groups: []router.Group{{Name: "nodes", Members: []router.Member{
		{Address: netip.MustParseAddr("10.20.0.11"), Node: "be1"}, {Address: netip.MustParseAddr("10.20.0.12"), Node: "be2"},
	}}}}
	var at []netip.AddrPort
	for i := range 20 {
		a := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.100"), uint16(8000+i)) //nolint:gosec // small
		at = append(at, a)
		d.Frontends = append(d.Frontends, router.Frontend{Address: a.Addr(), Protocol: router.TCP, Port: a.Port(), Service: "default/web", Group: "nodes", BackendPort: pairPort})
	}
	return at, until(ctx, "both instances", func(ctx context.Context) error { return p.client.Wait(ctx, p.client.Set(d)) })
}

// roles names the master and the other instance.
func (p *routerPair) roles(ctx context.Context) (master, other string, err error) {
	err = until(ctx, "a master", func(context.Context) error {
		s := p.client.State()
		if meaning, _ := s.MasterProblem(); meaning != "" {
			return errors.New(meaning)
		}
		master, other = "r1", "r2"
		if s.Instances[1].Master {
			master, other = other, master
		}
		return nil
	})
	return master, other, err
}

// copied waits until an instance has copies of so many connections.
func (p *routerPair) copied(ctx context.Context, name string, n int) error {
	return until(ctx, "copies", func(ctx context.Context) error {
		text, err := p.metrics(ctx, name, "/metrics")
		if err != nil {
			return err
		}
		var have float64
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "onelb_router_peer_connections{") {
				_, _ = fmt.Sscanf(line[strings.LastIndex(line, " ")+1:], "%g", &have)
			}
		}
		if have < float64(n) {
			return fmt.Errorf("%s has %.0f", name, have)
		}
		return nil
	})
}

// metrics asks an agent.
func (p *routerPair) metrics(ctx context.Context, name, what string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	h := &lab.Host{Namespace: p.spaces[name]}
	status, body, err := h.Get(ctx, "http://127.0.0.1:9912"+what)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	return string(body), err
}
