package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/proc"
)

var (
	// ErrNoHost is returned for the name of a host that the lab has not.
	ErrNoHost = errors.New("no such host in the lab")
	// ErrStarted is returned when a lab is started twice.
	ErrStarted = errors.New("lab was started already")
)

// Lab is a private datacenter. Its methods may be called from several
// goroutines after Start has returned.
type Lab struct {
	options Options
	begin   time.Time
	claim   *claim
	spawner *proc.Spawner
	ctx     context.Context // ends with the lab; for what runs inside this process
	cancel  context.CancelFunc
	inside  sync.WaitGroup // goroutines of the lab

	// Complete when buildNetwork has returned.
	switches, control, internet, lan *Host
	routers                          []*Router
	nodes                            []*Node
	l2s                              map[string]*l2

	kubeDir string // Kubernetes binaries
	tools   tools
	pki     *clusterPKI
	plane   controlPlane
	client  *kubernetes.Clientset // administrator's

	one *OneSim
	ccm *proc.Unit // with Options.Programs

	mu    sync.Mutex // guards all below
	hosts map[string]*Host
	pods  map[string]*Pod // by namespace/name
	units []*proc.Unit
}

// New checks the options. Nothing is started.
func New(o Options) (*Lab, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		options: o,
		routers: make([]*Router, o.Routers),
		nodes:   make([]*Node, o.Nodes),
		hosts:   map[string]*Host{},
		pods:    map[string]*Pod{},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// Run starts the lab, keeps it until ctx ends, and takes it down.
func (l *Lab) Run(ctx context.Context) error {
	if err := l.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return l.Close()
}

// Start brings the lab up and returns when the control plane answers, the nodes
// are registered and kube-proxy has programmed each, and, with
// Options.Programs, when onelb's programs run. After an error nothing is left.
func (l *Lab) Start(ctx context.Context) (err error) {
	if l.claim != nil {
		return ErrStarted
	}
	l.begin = time.Now()
	if l.claim, err = claimName(l.options.Name); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err = sweep(ctx, l.options.Name, l.options.Dir); err != nil {
		return fmt.Errorf("remove what an earlier lab left: %w", err)
	}
	if err = os.MkdirAll(l.options.Dir, 0o755); err != nil {
		return err
	}
	if err = l.prepare(ctx); err != nil {
		return err
	}
	if err = l.startOneSim(); err != nil {
		return err
	}
	l.say("datacenter of %d namespaces is up, OpenNebula answers", len(l.hosts)+1)
	return l.startCluster(ctx)
}

// prepare does what needs no running program, side by side.
func (l *Lab) prepare(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		var err error
		l.kubeDir, err = kubebin.Build(ctx, l.options.Progress)
		return err
	})
	g.Go(func() error { return l.buildPrograms(ctx) })
	g.Go(func() error {
		var err error
		l.tools, err = findTools(ctx, l.options.ProxyMode)
		return err
	})
	g.Go(func() error {
		var err error
		l.pki, err = newClusterPKI(l.path("pki"))
		return err
	})
	g.Go(l.buildNetwork)
	if err := g.Wait(); err != nil {
		return err
	}
	l.spawner = proc.NewSpawner(l.options.Name, append(l.tools.env(), "HOME="+l.options.Dir))
	return nil
}

// Close ends every process, removes every namespace, link and file of the lab,
// and gives up its name. It may be called at any time, and again.
func (l *Lab) Close() error {
	l.cancel()
	if l.claim == nil {
		return nil
	}
	errs := []error{l.plane.closeForwarder()}
	// SIGKILL: state that outlives the lab is of no interest, and time is.
	l.mu.Lock()
	units := slices.Clone(l.units)
	l.mu.Unlock()
	for _, u := range units {
		errs = append(errs, u.Kill())
	}
	if l.spawner != nil {
		l.spawner.Close()
	}
	l.inside.Wait()
	errs = append(errs, l.closeNetwork())
	dir := l.options.Dir
	if l.options.KeepDir {
		dir = ""
	}
	errs = append(errs, sweep(context.Background(), l.options.Name, dir), l.claim.release())
	l.claim = nil
	return errors.Join(errs...)
}

// closeNetwork removes the links, which the kernel would otherwise keep until
// the last socket in a namespace is closed, and the namespaces.
func (l *Lab) closeNetwork() error {
	var errs []error
	for _, n := range l.l2s {
		if n != nil {
			errs = append(errs, n.close())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		errs = append(errs, h.Delete())
	}
	if l.switches != nil {
		errs = append(errs, l.switches.Delete())
	}
	return errors.Join(errs...)
}

// Name is the lab's name, and Dir the directory with its logs and files.
func (l *Lab) Name() string { return l.options.Name }

// Dir is the directory with the lab's logs, certificates and kubeconfigs.
func (l *Lab) Dir() string { return l.options.Dir }

// Client is a Kubernetes client with all rights.
func (l *Lab) Client() *kubernetes.Clientset { return l.client }

// Internet is the host on the public network, outside of everything.
func (l *Lab) Internet() *Host { return l.internet }

// LAN is a client on the private network that is no node.
func (l *Lab) LAN() *Host { return l.lan }

// Control is the host of the control plane, onesim and the CCM.
func (l *Lab) Control() *Host { return l.control }

// Nodes are the Kubernetes nodes, node-1 first.
func (l *Lab) Nodes() []*Node { return slices.Clone(l.nodes) }

// Node is the node of the given name, nil if there is none.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.nodes {
		if n.ShortName() == name {
			return n
		}
	}
	return nil
}

// Router is instance i of the virtual router, from 1. It panics for a number
// that the lab was not made with.
func (l *Lab) Router(i int) *Router { return l.routers[i-1] }

// Host is the host of the given name, such as internet, lan, control, node-1.
func (l *Lab) Host(name string) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.hosts[name]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNoHost)
}

// Namespaces are the names of the lab's namespaces, sorted.
func (l *Lab) Namespaces() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := []string{l.switches.Name()}
	for _, h := range l.hosts {
		names = append(names, h.Name())
	}
	slices.Sort(names)
	return names
}

// prefix starts the name of each of the lab's namespaces.
func (l *Lab) prefix() string { return namespacePrefix + l.options.Name + "-" }

// path is a path in the lab's directory.
func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.options.Dir}, elem...)...)
}

// say writes one progress line with the time since the start.
func (l *Lab) say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintf(l.options.Progress, "%6.2fs  %s\n", time.Since(l.begin).Seconds(), strings.TrimSpace(line))
}

// unit describes a program of the lab; its log is named after it.
func (l *Lab) unit(h *Host, name, path string, args ...string) *proc.Unit {
	u := l.spawner.NewUnit(h, proc.Spec{Name: name, Path: path, Args: args, Log: l.path("logs", name+".log")})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.units = append(l.units, u)
	return u
}

// goInside runs f until the lab ends; Close waits for it.
func (l *Lab) goInside(f func(ctx context.Context)) {
	l.inside.Go(func() {
		f(l.ctx)
	})
}
