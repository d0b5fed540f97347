package onesim

import (
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"
)

// Version is what one.system.version answers: the front-end that was recorded.
const Version = "7.5.80"

// Delays are the times that drivers need. Zero means that the work is done before the call that asked for it
// answers, so that its intermediate state is never seen.
type Delays struct {
	Create  time.Duration // a network or reservation in LOCK_CREATE until READY
	Delete  time.Duration // a network in LOCK_DELETE until it is gone
	Hotplug time.Duration // a VM in HOTPLUG_NIC until RUNNING
	Deploy  time.Duration // PROLOG and BOOT
	Power   time.Duration // poweroff, suspend, undeploy, resume, terminate
	Context time.Duration // updateconf of a running VM
}

// MeasuredDelays are the medians measured on the recorded front-end.
var MeasuredDelays = Delays{
	Create: 9300 * time.Microsecond, Delete: 18 * time.Millisecond, Hotplug: 39 * time.Millisecond,
	Deploy: 100 * time.Millisecond, Power: 40 * time.Millisecond, Context: 20 * time.Millisecond,
}

// Options configures a Sim. The zero value is a front-end without latency and with instant drivers.
type Options struct {
	// AdminPassword is oneadmin's; "opennebula" when empty.
	AdminPassword string
	Delays        Delays
	// ManualDrivers stops all drivers: their work stays pending until Settle.
	ManualDrivers bool
	// NoScheduler leaves pending VMs pending until one.vm.deploy.
	NoScheduler bool
	// Latency is added to calls, by method name or "*". A writer keeps other writers waiting meanwhile,
	// as with the real server.
	Latency map[string]time.Duration
	// MaxRequest bounds a request's body in bytes; 8 MiB when 0.
	MaxRequest int64
	// MaxConns bounds the connections served at once and Backlog those waiting in the kernel; 15 each when 0,
	// as with the real server. Negative: no bound.
	MaxConns, Backlog int
	// IdleTimeout ends connections that send no request; 15 s when 0, as with the real server.
	IdleTimeout time.Duration
	// RandomMAC gives the lower 32 bits of a MAC address that oned would draw at random.
	RandomMAC func() uint32
}

// MeasuredLatency are the medians measured on the recorded front-end, by method.
func MeasuredLatency() map[string]time.Duration {
	return map[string]time.Duration{
		"*": time.Millisecond, "one.system.version": 700 * time.Microsecond, "one.vn.hold": 2100 * time.Microsecond,
		"one.vn.release": 2100 * time.Microsecond, "one.vm.info": 4600 * time.Microsecond,
		"one.vn.update": 2300 * time.Microsecond, "one.vn.reserve": 12300 * time.Microsecond,
		"one.vn.free_ar": 3700 * time.Microsecond, "one.vn.delete": 3200 * time.Microsecond,
		"one.vm.attachnic": 15400 * time.Microsecond,
	}
}

// Sim is one simulated front-end. Its methods may be called from any goroutine.
type Sim struct {
	opts    Options
	config  *template
	methods map[string]*method

	writer    chan struct{} // held by the one writer for the whole of its call
	nextDue   atomic.Int64  // unix nanoseconds of the earliest job, 0 without one
	requestID atomic.Int64
	faults    faultTable
	calls     callLog

	mu         sync.RWMutex // guards all below
	jobs       []job
	jobSeq     int
	users      pool[*user]
	groups     pool[*group]
	vnets      pool[*vnet]
	vms        pool[*vm]
	vrouters   pool[*vrouter]
	templates  pool[*vmTemplate]
	documents  pool[*document]
	hosts      pool[*host]
	clusters   pool[*cluster]
	datastores pool[*datastore]
	vdcs       pool[*vdc]
	rules      []rule
	nextRule   int
	driverFail map[driverKey]int
}

// New returns a front-end as a fresh installation leaves it: users oneadmin and serveradmin, the default
// cluster, datastores, groups and rules. It starts nothing.
func New(opts Options) (*Sim, error) {
	if opts.AdminPassword == "" {
		opts.AdminPassword = "opennebula"
	}
	if opts.MaxRequest == 0 {
		opts.MaxRequest = 8 << 20
	}
	if opts.RandomMAC == nil {
		opts.RandomMAC = randomMAC
	}
	config, err := loadConfig()
	if err != nil {
		return nil, err
	}
	s := &Sim{opts: opts, config: config, writer: make(chan struct{}, 1), driverFail: map[driverKey]int{}}
	s.methods = s.methodTable()
	s.install()
	return s, nil
}

// install makes what a fresh database has.
func (s *Sim) install() {
	s.groups.insert(&group{object: object{kind: kindGroup, id: 0, name: "oneadmin"}, template: &template{}})
	s.groups.insert(&group{object: object{kind: kindGroup, id: 1, name: "users"}, template: sunstoneViews()})
	s.groups.next = 100
	s.newUser("oneadmin", s.opts.AdminPassword, "core", []int{0})
	s.newUser("serveradmin", randomToken(), "server_cipher", []int{0})
	s.clusters.insert(&cluster{object: object{kind: kindCluster, id: 0, name: "default"},
		template: mustTemplate("RESERVED_CPU=\"\"\nRESERVED_MEM=\"\"")})
	s.clusters.next = 100
	s.installDatastores()
	s.vdcs.insert(&vdc{object: object{kind: kindVDC, id: 0, name: "default"}, groups: []int{1}})
	s.installRules()
}

func randomMAC() uint32 {
	var b [4]byte
	_, _ = crand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

func randomToken() string {
	var b [32]byte
	_, _ = crand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// job is the work of a driver or of the scheduler.
type job struct {
	due time.Time
	seq int
	run func()
}

// later plans work that a driver finishes after delay. The caller holds mu for writing.
func (s *Sim) later(delay time.Duration, run func()) {
	s.jobSeq++
	s.jobs = append(s.jobs, job{due: time.Now().Add(delay), seq: s.jobSeq, run: run})
	s.arm()
}

func (s *Sim) arm() {
	if len(s.jobs) == 0 || s.opts.ManualDrivers {
		s.nextDue.Store(0)
		return
	}
	s.nextDue.Store(s.earliest().due.UnixNano())
}

func (s *Sim) earliest() job {
	first := s.jobs[0]
	for _, j := range s.jobs[1:] {
		if j.due.Before(first.due) || j.due.Equal(first.due) && j.seq < first.seq {
			first = j
		}
	}
	return first
}

// runJobs runs the jobs that are due, or all, in order of time; jobs may plan further ones. The caller holds mu.
func (s *Sim) runJobs(all bool) {
	for len(s.jobs) > 0 {
		j := s.earliest()
		if !all && (s.opts.ManualDrivers || j.due.After(time.Now())) {
			break
		}
		for i := range s.jobs {
			if s.jobs[i].seq == j.seq {
				s.jobs = append(s.jobs[:i], s.jobs[i+1:]...)
				break
			}
		}
		j.run()
	}
	s.arm()
}

// catchUp runs what became due since the last call.
func (s *Sim) catchUp() {
	due := s.nextDue.Load()
	if due == 0 || due > time.Now().UnixNano() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runJobs(false)
}

// Settle lets all drivers finish at once what they are asked to do, whatever their delay.
func (s *Sim) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runJobs(true)
}
