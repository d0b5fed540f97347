package provider

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// stockRouter is a simulated front-end with a stock virtual router of two machines,
// whose user has the rights of manifests/opennebula/appliance-access.sh.
type stockRouter struct {
	*testing.T
	sim     *onesim.Sim
	cloud   *Cloud
	id      int
	vms     []int
	foreign []map[string]string // their contexts without us
}

func newStockRouter(t *testing.T) *stockRouter {
	t.Helper()
	s := &stockRouter{T: t}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.sim, err = onesim.New(onesim.Options{Delays: onesim.Delays{Context: 100 * time.Millisecond}})
	must(err)
	_, err = s.sim.AddUser("k8s", "k8spass123", "users")
	must(err)
	host, err := s.sim.AddHost("host")
	must(err)
	net, err := s.sim.AddVNet("", `NAME="public" VN_MAD="dummy" BRIDGE="br0" NETWORK_ADDRESS="203.0.113.0" NETWORK_MASK="255.255.255.0" AR=[TYPE="IP4",IP="203.0.113.2",SIZE="8"]`)
	must(err)
	s.id, s.vms, err = s.sim.AddVRouter(onesim.VRouterSpec{Name: "vr", Host: host, NICs: []onesim.NICSpec{{Network: net}}, VMs: []string{"vr-0", "vr-1"}})
	must(err)
	must(s.sim.Allow("k8s", "VROUTER", s.id, "USE"))
	endpoint, stop, err := s.sim.Start("127.0.0.1:0")
	must(err)
	t.Cleanup(stop)
	t.Setenv("ONELB_TEST_AUTH", "k8s:k8spass123")
	client, err := one.New(one.Options{Endpoint: endpoint, Credentials: one.CredentialEnv("ONELB_TEST_AUTH"), CacheTTL: time.Millisecond})
	must(err)
	for _, vm := range s.vms {
		must(s.sim.Allow("k8s", "VM", vm, "USE", "MANAGE"))
		must(client.MergeContext(t.Context(), vm, map[string]string{"ONEAPP_VNF_NAT4_PORT_FWD0": "2222:10.0.0.1:22", "THEIRS": "kept"}))
		was, err := s.sim.Context(vm)
		must(err)
		s.foreign = append(s.foreign, was)
	}
	s.cloud = &Cloud{one: client, config: &config.Config{Cluster: "lab"}, timing: Timing{Gather: 10 * time.Millisecond, Recheck: 100 * time.Millisecond}}
	return s
}

// ours are the variables of the i-th machine that are new and not empty.
func (s *stockRouter) ours(i int) map[string]string {
	s.Helper()
	now, err := s.sim.Context(s.vms[i])
	if err != nil {
		s.Fatal(err)
	}
	for name, value := range s.foreign[i] {
		if now[name] != value {
			s.Errorf("machine %d: %s is %q, was %q", i, name, now[name], value)
		}
		delete(now, name)
	}
	maps.DeleteFunc(now, func(_, value string) bool { return value == "" })
	return now
}

func (s *stockRouter) eventually(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("never: %s; machines have %v and %v", what, s.ours(0), s.ours(1))
		}
	}
}

// TestStockRouter programs one over OpenNebula's API, with its least rights; what is
// left on it when the cloud-config does not name it any more is found and taken away.
func TestStockRouter(t *testing.T) {
	s := newStockRouter(t)
	s.cloud.config.Routers = []config.Router{{Name: "stock", Driver: config.DriverAppliance, VirtualRouter: s.id}}
	client, err := s.cloud.newRouter(s.cloud.config.Routers[0], "uid", 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = client.Run(ctx) }()
	inner := netip.MustParseAddr("10.20.0.100")
	d := router.Document{
		Groups:    []router.Group{{Name: "vip", Members: []router.Member{{Address: inner}}}},
		Frontends: []router.Frontend{{Address: netip.MustParseAddr("203.0.113.100"), Protocol: router.TCP, Port: 80, BackendPort: 80, Group: "vip", Service: "default/web"}},
	}
	if err := client.Wait(t.Context(), client.Set(d)); err != nil {
		t.Fatal(err)
	}
	want := s.ours(0)
	values := slices.Sorted(maps.Values(want))
	if len(want) != 5 || !maps.Equal(want, s.ours(1)) || values[0] != "203.0.113.100/32" || values[1] != "203.0.113.100:80:10.20.0.100:80" {
		t.Errorf("machines have %v and %v", want, s.ours(1))
	}
	for name, value := range want { // an admin's edit
		if strings.HasPrefix(name, "ONEAPP_VNF_NAT4_PORT_FWD") && value != "" {
			if err := s.cloud.one.MergeContext(t.Context(), s.vms[1], map[string]string{name: "1:2.3.4.5"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.eventually("the edit is put right", func() bool { return maps.Equal(want, s.ours(1)) })
	if left, err := s.cloud.leftovers(t.Context(), "uid"); len(left) != 0 || err != nil {
		t.Errorf("leftovers %v, %v", left, err)
	}
	cancel()
	<-done

	s.cloud.config.Routers = nil
	if left, err := s.cloud.leftovers(t.Context(), "other"); len(left) != 0 || err != nil {
		t.Errorf("leftovers of another cluster: %v, %v", left, err)
	}
	s.cloud.withdrawLeftovers(t.Context(), &parts{identity: "uid", token: 2})
	if a, b := s.ours(0), s.ours(1); len(a)+len(b) != 0 {
		t.Errorf("left: %v and %v", a, b)
	}
}

// TestStockRouterWithoutRights tells what is missing.
func TestStockRouterWithoutRights(t *testing.T) {
	s := newStockRouter(t)
	o := s.cloud.appliance("stock", s.id+1, "uid", 1)
	state, err := appliance.Ask(t.Context(), o)
	if err != nil || len(state.Instances) != 1 || state.Instances[0].Err == nil {
		t.Errorf("no such virtual router: %+v, %v", state, err)
	}
	o.VirtualRouter = s.id
	state, err = appliance.Ask(t.Context(), o)
	if err != nil || len(state.Instances) != 2 || !state.Instances[0].Reachable || !state.Instances[1].Reachable {
		t.Errorf("%+v, %v", state, err)
	}
}
