package doctor

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
	"github.com/onelb/onelb/test/sample"
)

// cloud is a simulated front-end with the sample's networks and nodes.
type cloud struct {
	*onesim.Sim
	url             string
	private, public int
	host            int
	auth            string // file
}

const (
	user     = "k8s"
	password = "k8spass123"
)

func newCloud(t *testing.T) *cloud {
	t.Helper()
	sim, err := onesim.New(onesim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(server.Close)
	c := &cloud{Sim: sim, url: server.URL + "/RPC2", auth: filepath.Join(t.TempDir(), "one_auth")}
	c.login(t, user+":"+password)
	_, err = sim.AddUser(user, password, "")
	must(t, err)
	c.private = c.network(t, "private", `AR=[TYPE="IP4",IP="10.20.0.11",SIZE="200"]`)
	c.public = c.network(t, "public", `AR=[TYPE="IP4",IP="203.0.113.100",SIZE="100"]`)
	c.host, err = sim.AddHost("host-1")
	must(t, err)
	for i := range 4 { // VM 0 is nobody's node
		c.machine(t, i, c.private)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cloud) network(t *testing.T, name, more string) int {
	t.Helper()
	id, err := c.AddVNet("", "NAME=\""+name+"\"\nVN_MAD=\"dummy\"\nBRIDGE=\"br\"\n"+more+"\n")
	must(t, err)
	must(t, c.Allow(user, "NET", id, "USE"))
	return id
}

func (c *cloud) machine(t *testing.T, i, network int) int {
	t.Helper()
	id, err := c.AddVM(onesim.VMSpec{Name: "vm-" + string(rune('0'+i)), Owner: user, Host: c.host, NICs: []onesim.NICSpec{{Network: network}}})
	must(t, err)
	return id
}

func (c *cloud) login(t *testing.T, text string) {
	t.Helper()
	must(t, os.WriteFile(c.auth, []byte(text+"\n"), 0o600))
}

// examine looks at the sample as it is after a change, with this front-end.
func (c *cloud) examine(t *testing.T, change func(*sample.Cluster, *Patient)) []Finding {
	t.Helper()
	s := sample.New()
	late := &Patient{Config: &config.Config{Endpoint: c.url, Cluster: "lab", Routers: []config.Router{}}}
	change(s, late)
	p := patient(t, s)
	client, err := one.New(one.Options{Endpoint: late.Config.Endpoint, Credentials: one.CredentialFile(c.auth), RequestTimeout: 30 * time.Second})
	must(t, err)
	p.Config, p.OpenNebula, p.Ask = late.Config, client, late.Ask
	if len(p.Config.Routers) == 0 { // edge is known, and all is well there
		p.Config.Routers = []config.Router{{Name: "edge"}}
		p.Ask = func(context.Context, config.Router) (router.State, error) {
			return router.State{Instances: []router.InstanceState{{Endpoint: "a:1", Reachable: true, Master: true, Version: "v1"}}}, nil
		}
		var kept []Finding
		for _, f := range Examine(t.Context(), p) {
			if f.Check != "router-certificate" { // there are no files
				kept = append(kept, f)
			}
		}
		return kept
	}
	return Examine(t.Context(), p)
}

func nothing(*sample.Cluster, *Patient) {}

func TestOpenNebulaIsWell(t *testing.T) {
	if all := newCloud(t).examine(t, nothing); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestOpenNebulaFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault    func(*testing.T, *cloud, *sample.Cluster, *Patient)
		check    string
		severity Severity
		words    []string
	}{
		"unreachable": {func(_ *testing.T, _ *cloud, _ *sample.Cluster, p *Patient) {
			p.Config.Endpoint = "http://127.0.0.1:1/RPC2"
		},
			"opennebula-unreachable", Error, []string{"endpoint, caFile and proxy"}},
		"wrong password": {func(t *testing.T, c *cloud, _ *sample.Cluster, _ *Patient) { c.login(t, user+":nope") },
			"opennebula-credentials", Error, []string{"oneuser token-create"}},
		"no such network": {func(_ *testing.T, _ *cloud, s *sample.Cluster, _ *Patient) { s.Pools[0].Spec.Network.Name = "privat" },
			"network", Error, []string{"AddressPool main", `"privat"`, "USE"}},
		"two networks of the name": {func(t *testing.T, c *cloud, s *sample.Cluster, _ *Patient) {
			_, err := c.AddVNet(user, "NAME=\"public\"\nVN_MAD=\"dummy\"\nBRIDGE=\"br\"\nAR=[TYPE=\"IP4\",IP=\"10.9.0.1\",SIZE=\"9\"]\n")
			must(t, err)
		}, "network", Error, []string{"AddressPool edge", "ambiguous", "spec.network.id"}},
		"no addresses": {func(t *testing.T, c *cloud, s *sample.Cluster, _ *Patient) {
			s.Pools[1].Spec.Network.ID, s.Pools[1].Spec.Network.Name = ptr.To(int32(c.network(t, "ether", `AR=[TYPE="ETHER",SIZE="9"]`))), ""
		}, "network-ranges", Error, []string{"AddressPool edge", "onevnet addar"}},
		"nodes are elsewhere": {func(t *testing.T, c *cloud, s *sample.Cluster, _ *Patient) { s.Pools[0].Spec.Network.Name = "public" },
			"pool-without-nodes", Error, []string{"AddressPool main", `network "public"`, "exposure: Router"}},
		"VM that is not ours": {func(_ *testing.T, _ *cloud, s *sample.Cluster, _ *Patient) { s.Nodes[1].Spec.ProviderID = "one://77" },
			"node-vm", Error, []string{"node node-2", "VM 77", "oneacl create"}},
		"router not in the cloud-config": {func(_ *testing.T, _ *cloud, s *sample.Cluster, _ *Patient) { s.Pools[1].Spec.Router.Name = "egde" },
			"pool-router", Error, []string{`"egde"`, "routers of the cloud-config"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			expect(t, c.examine(t, func(s *sample.Cluster, p *Patient) { tt.fault(t, c, s, p) }), tt.check, tt.severity, tt.words...)
		})
	}
}

// front is a front-end whose machines the test writes itself: the simulator has no
// security groups of one's own.
type front struct {
	expires time.Time
	vms     []one.VM
}

func (f front) Check(context.Context) (string, error)    { return "7.0.0", nil }
func (f front) Token(context.Context) (one.Token, error) { return one.Token{Expires: f.expires}, nil }
func (f front) VMs(context.Context) ([]one.VM, error)    { return f.vms, nil }
func (f front) Find(_ context.Context, q ipam.NetworkQuery) (ipam.Network, error) {
	return ipam.Network{ID: 3, Name: q.Name, Parent: ipam.NoNetwork, Ranges: []ipam.Range{{First4: netip.MustParseAddr("10.20.0.100"), Size: 100}}}, nil
}

func newFront(change func(*one.VM)) front {
	var f front
	for i := 1; i <= 3; i++ {
		vm := one.VM{ID: i, NICs: []one.NIC{{ID: 0, NetworkID: 3, SecurityGroups: []int{0}}}, Rules: []one.Rule{{Group: 0, Inbound: true, Protocol: "ALL"}, {Group: 0, Protocol: "ALL"}}}
		if i == 2 {
			change(&vm)
		}
		f.vms = append(f.vms, vm)
	}
	return f
}

func TestMachines(t *testing.T) {
	narrow := func(r ...one.Rule) func(*one.VM) {
		return func(v *one.VM) { v.NICs[0].SecurityGroups, v.Rules = []int{100}, r }
	}
	gossip := one.Rule{Group: 100, Inbound: true, Protocol: "ALL", Ports: [][2]int{{7947, 7947}}}
	for name, tt := range map[string]struct {
		front front
		pool  func(*v1alpha1.AddressPool)
		check string
		words []string
	}{
		"well":            {front: newFront(func(*one.VM) {})},
		"no group at all": {front: newFront(func(v *one.VM) { v.NICs[0].SecurityGroups, v.Rules = nil, nil })},
		"ports are shut": {newFront(narrow(gossip, one.Rule{Group: 100, Inbound: true, Protocol: "TCP", Ports: [][2]int{{443, 443}}})), nil, "security-group",
			[]string{"node node-2", "VM 2 (100)", "in, from anywhere: 80/TCP", "onesecgroup update"}},
		"gossip is shut":   {newFront(narrow(one.Rule{Group: 100, Inbound: true, Protocol: "TCP"})), nil, "security-group", []string{"gossip of the node agents"}},
		"open by range":    {front: newFront(narrow(gossip, one.Rule{Group: 100, Inbound: true, Protocol: "TCP", Ports: [][2]int{{22, 22}, {80, 90}}}))},
		"open to some":     {newFront(narrow(gossip, one.Rule{Group: 100, Inbound: true, Protocol: "ALL", Narrow: true})), nil, "security-group", []string{"80/TCP", "only some sources"}},
		"another's rule":   {newFront(narrow(gossip, one.Rule{Group: 7, Inbound: true, Protocol: "ALL"})), nil, "security-group", []string{"80/TCP"}},
		"filter":           {newFront(func(v *one.VM) { v.NICs[0].SpoofingFilter = true }), nil, "spoofing-filter", []string{"what node-2 send", "guard: alias"}},
		"filter, guarded":  {front: newFront(func(v *one.VM) { v.NICs[0].SpoofingFilter = true }), pool: func(p *v1alpha1.AddressPool) { p.Spec.L2 = &v1alpha1.L2Spec{Guard: v1alpha1.GuardAlias} }},
		"in a reservation": {front: newFront(func(v *one.VM) { v.NICs[0].NetworkID, v.NICs[0].ParentNetworkID = 9, 3 })},
		"token expires":    {front{expires: time.Now().Add(time.Hour), vms: newFront(func(*one.VM) {}).vms}, nil, "opennebula-token", []string{"no restart is needed"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sample.New()
			s.Pools, s.VirtualIPs, s.Services = s.Pools[:1], s.VirtualIPs[:1], s.Services[:1]
			if tt.pool != nil {
				tt.pool(s.Pools[0])
			}
			p := patient(t, s)
			p.Config, p.OpenNebula = &config.Config{}, tt.front
			all := Examine(t.Context(), p)
			if tt.check == "" {
				if len(all) > 0 {
					t.Errorf("%+v", all)
				}
				return
			}
			severity := Warning
			if tt.check == "spoofing-filter" {
				severity = Error
			}
			expect(t, all, tt.check, severity, tt.words...)
		})
	}
}

// files writes the certificates of a cluster.
func files(t *testing.T, cluster string, v pki.Validity) config.Router {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.NewAuthority("test", pki.Validity{})
	must(t, err)
	client, err := ca.Client(cluster, v)
	must(t, err)
	r := config.Router{Name: "edge", Endpoints: []string{"127.0.0.1:1"}, CAFile: filepath.Join(dir, "ca.crt"), CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	for name, text := range map[string][]byte{r.CAFile: ca.PEM.Cert, r.CertFile: client.Cert, r.KeyFile: client.Key} {
		must(t, os.WriteFile(name, text, 0o600))
	}
	return r
}

// atRouter examines with one router, whose instances answer so.
func atRouter(t *testing.T, r config.Router, instances ...router.InstanceState) []Finding {
	t.Helper()
	return newCloud(t).examine(t, func(_ *sample.Cluster, p *Patient) {
		p.Config.Routers = []config.Router{r}
		p.Ask = func(context.Context, config.Router) (router.State, error) {
			return router.State{Router: r.Name, Instances: instances}, nil
		}
	})
}

func TestRouterFaults(t *testing.T) {
	up := router.InstanceState{Endpoint: "10.30.0.11:9443", Reachable: true, Master: true, Version: "v1"}
	with := func(change func(*router.InstanceState)) router.InstanceState {
		i := up
		i.Endpoint = "10.30.0.12:9443"
		i.Master = false
		change(&i)
		return i
	}
	good := files(t, "lab", pki.Validity{})
	if all := atRouter(t, good, up, with(func(*router.InstanceState) {})); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	gone := good
	gone.CertFile = "/nonexistent.crt"
	for name, tt := range map[string]struct {
		router   config.Router
		state    []router.InstanceState
		check    string
		severity Severity
		words    []string
	}{
		"unreachable": {good, []router.InstanceState{up, with(func(i *router.InstanceState) { i.Reachable, i.Err = false, os.ErrDeadlineExceeded })},
			"router-unreachable", Error, []string{"router edge, instance 10.30.0.12:9443", "onelb-router runs"}},
		"no answer yet": {good, []router.InstanceState{up, with(func(i *router.InstanceState) { i.Reachable = false })}, "router-unreachable", Error, []string{"does not answer"}},
		"versions":      {good, []router.InstanceState{up, with(func(i *router.InstanceState) { i.Version = "v2" })}, "router-versions", Warning, []string{"router edge", "same version"}},
		"no master":     {good, []router.InstanceState{with(func(*router.InstanceState) {})}, "router-master", Error, []string{"no instance is master", "keepalived"}},
		"two masters":   {good, []router.InstanceState{up, with(func(i *router.InstanceState) { i.Master = true })}, "router-master", Error, []string{"2 instances are master", "VRRP"}},
		"problem":       {good, []router.InstanceState{up, with(func(i *router.InstanceState) { i.Problems = []string{"no IPv6 forwarding"} })}, "router-problem", Warning, []string{"no IPv6 forwarding", "log"}},
		"backend down": {good, []router.InstanceState{up, with(func(i *router.InstanceState) {
			i.Down = []router.DownMember{{Node: "node-2", Address: netip.MustParseAddr("10.20.0.12"), Check: router.Check{Port: 10256}, Message: "refused"}}
		})}, "router-backend-down", Warning, []string{"node node-2", "10256", "kube-proxy"}},
		"expires soon":    {files(t, "lab", pki.Validity{To: time.Now().Add(time.Hour)}), []router.InstanceState{up}, "router-certificate-expiry", Warning, []string{"tls.crt", "it expires at", "onelbctl router bootstrap"}},
		"expired":         {files(t, "lab", pki.Validity{From: time.Now().Add(-time.Hour), To: time.Now().Add(-time.Minute)}), []router.InstanceState{up}, "router-certificate-expiry", Error, []string{"has expired"}},
		"another cluster": {files(t, "prod", pki.Validity{}), []router.InstanceState{up}, "router-certificate", Error, []string{`not for cluster "lab"`, "--cluster lab"}},
		"no file":         {gone, []router.InstanceState{up}, "router-certificate", Error, []string{"/nonexistent.crt", "bootstrap"}},
	} {
		t.Run(name, func(t *testing.T) { expect(t, atRouter(t, tt.router, tt.state...), tt.check, tt.severity, tt.words...) })
	}
}

func TestAskRoutersThatDoNotAnswer(t *testing.T) {
	s, err := AskRouters(nil, "lab", "id", time.Minute)(t.Context(), files(t, "lab", pki.Validity{}))
	if err != nil || len(s.Instances) != 1 || s.Instances[0].Reachable || s.Instances[0].Err == nil || !strings.Contains(s.Instances[0].Err.Error(), "127.0.0.1:1") {
		t.Errorf("%+v, %v", s, err)
	}
}
