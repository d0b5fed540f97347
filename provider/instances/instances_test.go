package instances

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/cloud-provider/node/helpers"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
)

// fake is OpenNebula: list is what VMs returns, byID what VM does.
type fake struct {
	list     []one.VM
	listErr  error
	byID     map[int]one.VM
	readErr  error
	clusters map[int]string
	hosts    map[int]one.Place
	placeErr error
	reads    int
}

func (f *fake) VMs(context.Context) ([]one.VM, error) { return f.list, f.listErr }

func (f *fake) VM(_ context.Context, id int) (one.VM, error) {
	f.reads++
	if f.readErr != nil {
		return one.VM{}, f.readErr
	}
	if vm, ok := f.byID[id]; ok {
		return vm, nil
	}
	return one.VM{}, fmt.Errorf("read virtual machine %d: %w", id, ipam.ErrNotFound)
}

func (f *fake) Cluster(_ context.Context, id int) (one.Place, error) {
	if f.placeErr != nil {
		return one.Place{}, f.placeErr
	}
	if name, ok := f.clusters[id]; ok {
		return one.Place{Name: name, Attributes: map[string]string{"ROOM": "B"}}, nil
	}
	return one.Place{}, ipam.ErrNotFound
}

func (f *fake) Host(_ context.Context, id int) (one.Place, error) {
	if p, ok := f.hosts[id]; ok {
		return p, f.placeErr
	}
	return one.Place{}, errors.Join(f.placeErr, ipam.ErrNotFound)
}

func (f *fake) ZoneName(context.Context) (string, error) { return "OpenNebula Zone", f.placeErr }

func (f *fake) instances(t *testing.T, o Options) *Instances {
	t.Helper()
	o.OpenNebula = f
	i, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func nic(id int, network string, addresses ...string) one.NIC {
	n := one.NIC{ID: id, Network: network}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return n
}

func alias(n one.NIC) one.NIC { n.Alias = true; return n }

func vm(id int, name string, nics ...one.NIC) one.VM {
	return one.VM{ID: id, Name: name, Owner: "k8s", State: one.VMActive, LCMState: 3, NICs: nics, ClusterID: 0, VCPU: 2, MemoryMB: 4096}
}

func node(name, providerID, nodeIP string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerID}}
	if nodeIP != "" {
		n.Annotations = map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: nodeIP}
	}
	return n
}

func TestInstanceExists(t *testing.T) {
	done := vm(3, "node-3")
	done.State = one.VMDone
	unreadable := one.VM{ID: 4, Name: "node-4", Err: errors.New("NIC 0: nonsense")}
	down := errors.New("connection refused")
	for _, c := range []struct {
		name string
		fake fake
		node *corev1.Node
		want bool
		err  error // nil with want false: proven to be gone
		read bool
	}{
		{name: "listed", fake: fake{list: []one.VM{vm(1, "x")}}, node: node("node-1", "one://1", ""), want: true},
		{name: "not listed, but there", fake: fake{byID: map[int]one.VM{1: vm(1, "x")}}, node: node("node-1", "one://1", ""), want: true, read: true},
		{name: "DONE", fake: fake{byID: map[int]one.VM{3: done}}, node: node("node-3", "one://3", ""), read: true},
		{name: "denied", fake: fake{readErr: ipam.ErrDenied}, node: node("node-1", "one://1", ""), err: ipam.ErrDenied, read: true},
		{name: "wrong password", fake: fake{readErr: ipam.ErrUnauthenticated}, node: node("node-1", "one://1", ""), err: ipam.ErrUnauthenticated, read: true},
		{name: "hang", fake: fake{readErr: context.DeadlineExceeded}, node: node("node-1", "one://1", ""), err: context.DeadlineExceeded, read: true},
		{name: "no list", fake: fake{listErr: down}, node: node("node-1", "one://1", ""), err: down},
		{name: "listed but unreadable", fake: fake{list: []one.VM{unreadable}, readErr: ipam.ErrUnavailable}, node: node("node-4", "one://4", ""), err: ipam.ErrUnavailable, read: true},
		{name: "by name", fake: fake{list: []one.VM{vm(1, "node-1")}}, node: node("node-1", "", ""), want: true},
	} {
		got, err := c.fake.instances(t, Options{}).InstanceExists(t.Context(), c.node)
		if got != c.want || !errors.Is(err, c.err) || (c.fake.reads > 0) != c.read {
			t.Errorf("%s: %v, %v, %d reads", c.name, got, err, c.fake.reads)
		}
		if err != nil && !strings.Contains(err.Error(), c.node.Name) {
			t.Errorf("%s: %q does not name the node", c.name, err)
		}
	}
	for _, n := range []*corev1.Node{node("node-9", "", ""), node("node-9", "one://9", ""), node("node-9", "kind://x", ""), node("node-9", "one://x", "")} {
		if got, err := (&fake{}).instances(t, Options{}).InstanceExists(t.Context(), n); got || err == nil {
			t.Errorf("%q: gone without proof: the Node would be deleted", n.Spec.ProviderID)
		}
	}
}

// TestNoSuchVM: OpenNebula keeps terminated machines, so one that it does not know
// is gone only if it knows others of this cluster.
func TestNoSuchVM(t *testing.T) {
	f := &fake{list: []one.VM{vm(1, "node-1"), vm(5, "somebody-else's"), {ID: 6, Name: "node-6", Err: errors.New("nonsense")}}}
	i := f.instances(t, Options{})
	gone := func(n *corev1.Node) bool {
		t.Helper()
		exists, err := i.InstanceExists(t.Context(), n)
		if exists {
			t.Errorf("%s exists", n.Name)
		}
		return err == nil
	}
	if gone(node("node-2", "one://2", "")) {
		t.Error("gone, though the front-end has shown none of our machines: the endpoint may be another's")
	}
	if exists, err := i.InstanceExists(t.Context(), node("node-1", "one://1", "")); !exists || err != nil {
		t.Fatal(exists, err)
	}
	if !gone(node("node-2", "one://2", "")) {
		t.Error("not gone, though the front-end knows another of our machines")
	}
	if gone(node("node-6", "one://6", "")) {
		t.Error("gone, though the front-end lists it")
	}
	f.list = f.list[1:]
	if gone(node("node-2", "one://2", "")) {
		t.Error("gone, though all our machines have vanished at once")
	}

	// The same ID on another front-end is not our machine.
	f.list = []one.VM{vm(1, "other")}
	f.list[0].UUID = "39c23984-160c-4c31-9654-086d74de3c60"
	n := node("node-1", "one://1", "")
	n.Status.NodeInfo.SystemUUID = "00000000-160c-4c31-9654-086d74de3c60"
	i = f.instances(t, Options{})
	if exists, err := i.InstanceExists(t.Context(), n); !exists || err != nil {
		t.Fatal(exists, err)
	}
	if gone(node("node-2", "one://2", "")) {
		t.Error("gone, though the only other machine has another UUID than its Node")
	}
}

func TestInstanceShutdown(t *testing.T) {
	for state, want := range map[one.VMState]bool{
		one.VMInit: true, one.VMPending: true, one.VMHold: true, one.VMActive: false, one.VMStopped: true, one.VMSuspended: true,
		one.VMPowerOff: true, one.VMUndeployed: true, one.VMCloning: true, one.VMCloningFailure: true,
	} {
		for _, lcm := range []one.LCMState{0, 3, 16, 18, 36, 200} {
			v := vm(1, "x")
			v.State, v.LCMState = state, lcm
			got, err := (&fake{list: []one.VM{v}}).instances(t, Options{}).InstanceShutdown(t.Context(), node("n", "one://1", ""))
			if got != want || err != nil {
				t.Errorf("%s %s: %v, %v", v.State, lcm, got, err)
			}
		}
	}
	for _, state := range []one.VMState{7, 12, 99} {
		v := vm(1, "x")
		v.State = state
		if got, err := (&fake{list: []one.VM{v}}).instances(t, Options{}).InstanceShutdown(t.Context(), node("n", "one://1", "")); got || err == nil {
			t.Errorf("%s: %v, %v", state, got, err)
		}
	}
	done := vm(1, "x")
	done.State = one.VMDone
	if _, err := (&fake{byID: map[int]one.VM{1: done}}).instances(t, Options{}).InstanceShutdown(t.Context(), node("n", "one://1", "")); !errors.Is(err, cloudprovider.InstanceNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestInstanceMetadata(t *testing.T) {
	f := &fake{list: []one.VM{vm(7, "Node-1", nic(0, "private", "10.20.0.11", "fd00:20::11"))}, clusters: map[int]string{0: "rack 1/2"}}
	got, err := f.instances(t, Options{}).InstanceMetadata(t.Context(), node("node-1", "", "10.20.0.11,fd00:20::11"))
	want := &cloudprovider.InstanceMetadata{
		ProviderID: "one://7", InstanceType: "2vcpu-4096mb", Zone: "rack-1-2", Region: "OpenNebula-Zone",
		NodeAddresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "10.20.0.11"},
			{Type: corev1.NodeInternalIP, Address: "fd00:20::11"},
			{Type: corev1.NodeHostName, Address: "node-1"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	f.clusters = nil
	got, err = f.instances(t, Options{Nodes: config.Instances{Region: "here"}}).InstanceMetadata(t.Context(), node("node-1", "one://7", ""))
	if err != nil || got.Zone != "cluster-0" || got.Region != "here" {
		t.Errorf("%+v, %v", got, err)
	}
	f.list[0].ClusterID = -1
	if got, err = f.instances(t, Options{}).InstanceMetadata(t.Context(), node("node-1", "one://7", "")); err != nil || got.Zone != "" {
		t.Errorf("%+v, %v", got, err)
	}
	f.placeErr = ipam.ErrUnavailable
	if got, err = f.instances(t, Options{}).InstanceMetadata(t.Context(), fresh(node("node-1", "one://7", ""))); got != nil || !errors.Is(err, ipam.ErrUnavailable) {
		t.Errorf("labels are written once: %+v, %v", got, err)
	}
	if got, err = f.instances(t, Options{}).InstanceMetadata(t.Context(), node("node-1", "one://7", "")); err != nil || len(got.NodeAddresses) != 3 {
		t.Errorf("labels are written already, addresses matter: %+v, %v", got, err)
	}
	if got, err = (&fake{}).instances(t, Options{}).InstanceMetadata(t.Context(), node("n", "one://1", "")); got != nil || err == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// fresh is a Node that the node controller has not initialised yet.
func fresh(n *corev1.Node) *corev1.Node {
	n.Spec.Taints = []corev1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Effect: corev1.TaintEffectNoSchedule}}
	return n
}

func TestTraits(t *testing.T) {
	machine := vm(7, "Web 1")
	machine.Host, machine.HostID, machine.Attributes = "kvm-3", 3, map[string]string{"RACK": "r 7"}
	f := &fake{
		list: []one.VM{machine}, clusters: map[int]string{0: "east"},
		hosts: map[int]one.Place{3: {Name: "kvm-3", Attributes: map[string]string{"ROW": "12"}}},
	}
	vmRack, hostRow := config.Source{Kind: config.SourceVM, Attribute: "RACK"}, config.Source{Kind: config.SourceHost, Attribute: "ROW"}
	o := Options{Nodes: config.Instances{
		Type: vmRack, Zone: hostRow, RegionFrom: config.Source{Kind: config.SourceCluster, Attribute: "ROOM"},
		Labels: map[string]config.Source{
			"a/id": {Kind: config.SourceID}, "a/name": {Kind: config.SourceName}, "a/owner": {Kind: config.SourceOwner}, "a/size": {Kind: config.SourceSize},
			"a/zone": {Kind: config.SourceZone}, "a/cluster": {Kind: config.SourceCluster}, "a/host": {Kind: config.SourceHost},
			"a/none": {Kind: config.SourceVM, Attribute: "ABSENT"},
		},
	}}
	n := fresh(node("n", "one://7", ""))
	m, err := f.instances(t, o).InstanceMetadata(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a/id": "7", "a/name": "Web-1", "a/owner": "k8s", "a/size": "2vcpu-4096mb", "a/zone": "OpenNebula-Zone", "a/cluster": "east", "a/host": "kvm-3",
	}
	if diff := cmp.Diff(want, m.AdditionalLabels); diff != "" || m.InstanceType != "r-7" || m.Zone != "12" || m.Region != "B" {
		t.Errorf("%+v %s", m, diff)
	}
	o.Nodes.Type = config.Source{Kind: config.SourceNone}
	o.Nodes.Zone = config.Source{Kind: config.SourceVM, Attribute: "ABSENT"}
	_, err = f.instances(t, o).InstanceMetadata(t.Context(), n)
	for _, part := range []string{"node n", "instances.zoneFrom vm:ABSENT", "user template of VM 7", "set it"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
	f.hosts = nil
	o.Nodes.Zone = hostRow
	if _, err := f.instances(t, o).InstanceMetadata(t.Context(), n); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("an invisible host: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	machine := vm(1, "n",
		alias(nic(5, "private", "10.20.0.100")),
		nic(2, "storage", "192.168.0.5"),
		nic(1, "public", "203.0.113.5", "2001:db8:113::5"),
		nic(0, "private", "10.20.0.11", "fd00:20::11"),
		nic(6, "private", "10.20.0.11"), // a repetition
		one.NIC{ID: 9, Network: "private", Attaching: true, Addresses: []netip.Addr{netip.MustParseAddr("10.20.0.99")}},
		nic(3, "ether"),
		nic(4, "linklocal", "fe80::1", "169.254.0.1"),
		nic(7, "10.99.0.0/16", "10.99.0.1", "172.16.0.1"),
	)
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"default": {Options{}, "I 10.20.0.11, I fd00:20::11, I 203.0.113.5, I 2001:db8:113::5, I 192.168.0.5, I 10.20.0.100, H n"},
		"external": {
			Options{Nodes: config.Instances{ExternalNetworks: []string{"public"}}},
			"I 10.20.0.11, I fd00:20::11, I 192.168.0.5, I 10.20.0.100, E 203.0.113.5, E 2001:db8:113::5, H n",
		},
		"ordered": {
			Options{Nodes: config.Instances{InternalNetworks: []string{"storage", "private"}, ExternalNetworks: []string{"public"}}},
			"I 192.168.0.5, I 10.20.0.11, I fd00:20::11, I 10.20.0.100, E 203.0.113.5, E 2001:db8:113::5, H n",
		},
		"prefixes": {
			Options{Nodes: config.Instances{InternalNetworks: []string{"fd00::/8", "10.20.0.100/32", "private"}, ExternalNetworks: []string{"203.0.0.0/8", "2001:db8:113::/48", "10.0.0.0/8"}}},
			"I fd00:20::11, I 10.20.0.100, E 203.0.113.5, E 2001:db8:113::5, E 10.20.0.11, H n",
		},
		"one prefix": {Options{Nodes: config.Instances{ExternalNetworks: []string{"2001:db8::/32"}}},
			"I 10.20.0.11, I fd00:20::11, I 203.0.113.5, I 192.168.0.5, I 10.20.0.100, E 2001:db8:113::5, H n"},
		"called like a prefix": {Options{Nodes: config.Instances{InternalNetworks: []string{"10.99.0.0/16"}}}, "I 10.99.0.1, I 172.16.0.1, H n"},
		"only":                 {Options{Nodes: config.Instances{InternalNetworks: []string{"private"}}}, "I 10.20.0.11, I fd00:20::11, I 10.20.0.100, H n"},
	} {
		f := &fake{list: []one.VM{machine}}
		if name != "called like a prefix" {
			f.list[0].NICs = machine.NICs[:len(machine.NICs)-1]
		}
		m, err := f.instances(t, c.options).InstanceMetadata(t.Context(), node("n", "one://1", ""))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range m.NodeAddresses {
			got = append(got, string(a.Type[0])+" "+a.Address)
		}
		if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestProvidedNodeIP: what the library does with our answer must succeed, or our
// error must say what to do.
func TestProvidedNodeIP(t *testing.T) {
	machine := vm(1, "n", nic(0, "private", "10.20.0.11", "fd00:20::11"), nic(1, "storage", "192.168.0.5"))
	later := machine
	later.NICs = append(later.NICs[:2:2], nic(2, "private", "10.20.0.12"))
	o := Options{Nodes: config.Instances{InternalNetworks: []string{"private"}}}
	for _, c := range []struct {
		ip   string
		want []string // parts of the error; nil: works
	}{
		{"10.20.0.11", nil},
		{"fd00:20:0::11", nil},
		{"10.20.0.11,fd00:20::11", nil},
		{"10.20.0.12", nil}, // attached after the list was read
		{"192.168.0.5", []string{`"storage"`, "instances.internalNetworks", "cloud-config"}},
		{"10.20.0.99", []string{"10.20.0.99", "VM 1", "10.20.0.11", "--node-ip", "--provider-id"}},
		{"0.0.0.0", []string{"--node-ip"}},
		{"nonsense", []string{"provided-node-ip", "--node-ip"}},
	} {
		f := &fake{list: []one.VM{machine}, byID: map[int]one.VM{1: later}}
		m, err := f.instances(t, o).InstanceMetadata(t.Context(), node("n", "one://1", c.ip))
		if c.want == nil {
			if err != nil {
				t.Errorf("%s: %v", c.ip, err)
			} else if _, err := helpers.GetNodeAddressesFromNodeIP(c.ip, m.NodeAddresses); err != nil {
				t.Errorf("%s: the library: %v", c.ip, err)
			}
			continue
		}
		if err == nil || m != nil {
			t.Errorf("%s: no error", c.ip)
			continue
		}
		for _, want := range append(c.want, "node n") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing in %q", c.ip, want, err)
			}
		}
	}
}

func TestSearch(t *testing.T) {
	router := vm(9, "node-1", nic(0, "private", "10.20.0.11"))
	router.VirtualRouter = true
	vms := []one.VM{
		vm(1, "node-1", nic(0, "private", "10.20.0.11")),
		vm(2, "twin", nic(0, "private", "10.20.0.12")),
		vm(3, "TWIN", nic(0, "private", "10.20.0.13")),
		vm(4, "other-name", nic(0, "private", "10.20.0.14")),
		vm(5, "isolated-a", nic(0, "a", "10.0.0.5")),
		vm(6, "isolated-b", nic(0, "b", "10.0.0.5")),
		{ID: 8, Name: "odd", Err: errors.New("NIC 0: nonsense")},
		router,
	}
	reported := node("four", "", "")
	reported.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.20.0.14"}, {Type: corev1.NodeHostName, Address: "four"}}
	for _, c := range []struct {
		node *corev1.Node
		want int
		text []string
	}{
		{node: node("node-1", "", ""), want: 1},
		{node: node("node-1", "", "10.20.0.11"), want: 1},
		{node: node("twin", "", "10.20.0.13"), want: 3},
		{node: node("unknown", "", "10.20.0.14"), want: 4},
		{node: reported, want: 4},
		{node: node("twin", "", ""), text: []string{"VM 2 (twin, owner k8s), VM 3 (TWIN, owner k8s)", "--provider-id=one://2"}},
		{node: node("twin", "", "10.20.0.99"), text: []string{"VM 2", "VM 3"}},
		{node: node("unknown", "", "10.0.0.5"), text: []string{"VM 5", "VM 6", "address"}},
		{node: node("unknown", "", "10.0.0.99"), text: []string{"10.0.0.99", "--provider-id"}},
		{node: node("unknown", "", ""), text: []string{"visible"}},
		{node: node("odd", "", ""), text: []string{"nonsense"}},
		{node: node("odd", "", "junk"), text: []string{"junk"}},
	} {
		f := &fake{list: vms}
		got, err := f.instances(t, Options{}).find(t.Context(), c.node)
		if c.text == nil {
			if err != nil || got.ID != c.want {
				t.Errorf("%s: VM %d, %v", c.node.Name, got.ID, err)
			}
			continue
		}
		if err == nil || errors.Is(err, cloudprovider.InstanceNotFound) {
			t.Errorf("%s: %v", c.node.Name, err)
			continue
		}
		for _, want := range append(c.text, "node "+c.node.Name) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is missing in %q", c.node.Name, want, err)
			}
		}
	}
}

func TestHostname(t *testing.T) {
	n := node("n", "one://1", "")
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n.example.org"}}
	m, err := (&fake{list: []one.VM{vm(1, "x")}}).instances(t, Options{}).InstanceMetadata(t.Context(), n)
	if err != nil || m.NodeAddresses[0].Address != "n.example.org" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestLabelValue(t *testing.T) {
	for name, want := range map[string]string{
		"OpenNebula": "OpenNebula", "rack 1": "rack-1", "ü": "", "--a--": "a", "": "", strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := labelValue(name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}
