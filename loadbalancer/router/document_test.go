package router

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

var compareAddresses = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

// sample is a valid document that uses every field.
func sample() Document {
	return Document{
		Cluster: "lab", Identity: "uid-1", Token: 7, Generation: 42,
		Groups: []Group{
			{Name: "nodes4", Members: []Member{
				{Address: netip.MustParseAddr("10.20.0.11"), Weight: 1, Node: "node-1"},
				{Address: netip.MustParseAddr("10.20.0.12"), Weight: 3, Node: "node-2"},
			}, Check: &Check{Port: 10256, Path: "/healthz"}},
			{Name: "nodes6", Members: []Member{{Address: netip.MustParseAddr("fd00:20::11"), Weight: 1, Node: "node-1"}}},
		},
		Frontends: []Frontend{
			{Address: netip.MustParseAddr("203.0.113.100"), Protocol: TCP, Port: 80, Service: "default/web", Group: "nodes4", BackendPort: 30080, SNAT: SNATAuto, Affinity: 3 * time.Hour, MaxConnections: 1000},
			{
				Address: netip.MustParseAddr("203.0.113.100"), Protocol: UDP, Port: 53, Service: "default/dns", Group: "nodes4", BackendPort: 30053, SNAT: SNATNever,
				SourceRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
			},
			{Address: netip.MustParseAddr("2001:db8:113::100"), Protocol: SCTP, Port: 80, Service: "default/web", Group: "nodes6", BackendPort: 30080, SNAT: SNATAlways},
			{Address: netip.MustParseAddr("2001:db8:113::101"), Protocol: TCP, Port: 80, Service: "default/routed", Group: "nodes4", BackendPort: 80, SNAT: SNATNever, Routed: true},
		},
		Routes: []Route{
			{Destination: netip.MustParsePrefix("10.244.1.0/24"), Gateway: netip.MustParseAddr("10.20.0.11")},
			{Destination: netip.MustParsePrefix("fd00:244:1::/64"), Gateway: netip.MustParseAddr("fd00:20::11")},
		},
	}
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Document)
		want   string
	}{
		"no cluster":          {func(d *Document) { d.Cluster = "" }, `cluster "" is not a DNS label`},
		"cluster with a path": {func(d *Document) { d.Cluster = "../x" }, "not a DNS label"},
		"same frontend":       {func(d *Document) { d.Frontends = slices.Insert(d.Frontends, 1, d.Frontends[0]) }, "frontend 203.0.113.100:80/TCP of Service default/web: Service default/web has the same frontend"},
		"unsorted frontends":  {func(d *Document) { d.Frontends[0], d.Frontends[1] = d.Frontends[1], d.Frontends[0] }, "not sorted"},
		"unknown group":       {func(d *Document) { d.Frontends[0].Group = "x" }, `of Service default/web: group "x" is not in the document`},
		"other family":        {func(d *Document) { d.Frontends[0].Group = "nodes6" }, `the members of group "nodes6" are IPv6`},
		"mixed group":         {func(d *Document) { d.Groups[0].Members = append(d.Groups[0].Members, d.Groups[1].Members...) }, "of another family"},
		"same member":         {func(d *Document) { d.Groups[0].Members[1].Address = d.Groups[0].Members[0].Address }, "not sorted or not unique"},
		"same group":          {func(d *Document) { d.Groups[1].Name = d.Groups[0].Name }, `group "nodes4" is not sorted or not unique`},
		"mapped address":      {func(d *Document) { d.Frontends[0].Address = netip.MustParseAddr("::ffff:1.2.3.4") }, "mapped"},
		"no address":          {func(d *Document) { d.Frontends[0].Address = netip.Addr{} }, "no address"},
		"loopback":            {func(d *Document) { d.Frontends[0].Address = netip.MustParseAddr("127.0.0.1") }, "not a global unicast"},
		"broadcast member":    {func(d *Document) { d.Groups[0].Members[1].Address = broadcast }, "not a global unicast"},
		"no port":             {func(d *Document) { d.Frontends[0].Port = 0 }, "is 0"},
		"no backend port":     {func(d *Document) { d.Frontends[0].BackendPort = 0 }, "is 0"},
		"protocol":            {func(d *Document) { d.Frontends[2].Protocol = "ICMP" }, `protocol "ICMP"`},
		"snat":                {func(d *Document) { d.Frontends[0].SNAT = "maybe" }, `snat "maybe"`},
		"affinity":            {func(d *Document) { d.Frontends[0].Affinity = 25 * time.Hour }, "up to 24h"},
		"part of a second":    {func(d *Document) { d.Frontends[0].Affinity = time.Millisecond }, "not whole seconds"},
		"routed and not": {func(d *Document) {
			f := d.Frontends[3]
			f.Port, f.Routed, f.Group = 81, false, "nodes6"
			d.Frontends = append(d.Frontends, f)
		}, "of Service default/routed: one frontend of 2001:db8:113::101 is routed and another is translated"},
		"routed to a port":   {func(d *Document) { d.Frontends[3].BackendPort = 8080 }, "it is routed, and still has port 8080"},
		"routed and sticky":  {func(d *Document) { d.Frontends[3].Affinity = time.Hour }, "affinity 1h0m0s"},
		"routed and hidden":  {func(d *Document) { d.Frontends[3].SNAT = SNATAuto }, "snat auto"},
		"limit":              {func(d *Document) { d.Frontends[0].MaxConnections = MaxConnectionLimit + 1 }, "at most 1000000"},
		"default route":      {func(d *Document) { d.Routes[0].Destination = netip.MustParsePrefix("0.0.0.0/0") }, "shorter than /8"},
		"route to itself":    {func(d *Document) { d.Routes[0].Gateway = netip.MustParseAddr("10.244.1.1") }, "has the gateway in it"},
		"route of two":       {func(d *Document) { d.Routes[0].Gateway = d.Routes[1].Gateway }, "another family"},
		"unsorted routes":    {func(d *Document) { slices.Reverse(d.Routes) }, "not sorted"},
		"many routes":        {func(d *Document) { d.Routes = make([]Route, MaxRoutes+1) }, "8193 routes"},
		"weight":             {func(d *Document) { d.Groups[0].Members[0].Weight = MaxWeight + 1 }, "weight 1001"},
		"negative weight":    {func(d *Document) { d.Groups[0].Members[0].Weight = -1 }, "weight -1"},
		"check path":         {func(d *Document) { d.Groups[0].Check.Path = "healthz" }, "starts with /"},
		"check path with CR": {func(d *Document) { d.Groups[0].Check.Path = "/ HTTP/1.1\r\nX: y" }, "starts with /"},
		"check port":         {func(d *Document) { d.Groups[0].Check.Port = 0 }, "needs a port"},
		"unmasked range":     {func(d *Document) { d.Frontends[0].SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/8")} }, "not a masked prefix"},
		"many ranges":        {func(d *Document) { d.Frontends[0].SourceRanges = make([]netip.Prefix, MaxSourceRanges+1) }, "1025 source ranges"},
		"many members":       {func(d *Document) { d.Groups[0].Members = make([]Member, MaxMembers+1) }, "1025 members"},
		"long service":       {func(d *Document) { d.Frontends[0].Service = strings.Repeat("x", 321) }, "Service's name"},
	} {
		t.Run(name, func(t *testing.T) {
			d := sample()
			test.change(&d)
			if err := d.Validate(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	want := sample()
	d := sample()
	slices.Reverse(d.Frontends)
	slices.Reverse(d.Groups)
	slices.Reverse(d.Groups[1].Members)
	d.Groups[1].Members[1].Weight, d.Groups[0].Members[0].Weight = 0, 0
	for i := range d.Frontends {
		if d.Frontends[i].SNAT == SNATAuto {
			d.Frontends[i].SNAT = ""
		}
		d.Frontends[i].Address = netip.AddrFrom16(d.Frontends[i].Address.As16())
		slices.Reverse(d.Frontends[i].SourceRanges)
	}
	d.Frontends[2].SourceRanges = append(d.Frontends[2].SourceRanges, netip.MustParsePrefix("10.255.0.0/8"))
	before := d.Frontends[0]
	got := d.Normalize()
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Error(diff)
	}
	if got.Hash() != want.Hash() {
		t.Error("another order gives another hash")
	}
	if !d.Frontends[0].Equal(before) {
		t.Error("Normalize changed its receiver")
	}
}

// TestHash: every field but token and generation counts.
func TestHash(t *testing.T) {
	base := sample().Hash()
	same := sample()
	same.Token, same.Generation = 1, 1
	if same.Hash() != base {
		t.Error("token or generation changes the hash")
	}
	for name, change := range map[string]func(*Document){
		"cluster": func(d *Document) { d.Cluster = "x" }, "identity": func(d *Document) { d.Identity = "x" },
		"group":  func(d *Document) { d.Groups[0].Name = "x" },
		"member": func(d *Document) { d.Groups[0].Members = d.Groups[0].Members[:1] },
		"weight": func(d *Document) { d.Groups[0].Members[0].Weight = 9 }, "node": func(d *Document) { d.Groups[0].Members[0].Node = "x" },
		"check": func(d *Document) { d.Groups[0].Check = nil }, "check path": func(d *Document) { d.Groups[0].Check.Path = "/x" },
		"protocol": func(d *Document) { d.Frontends[0].Protocol = UDP }, "port": func(d *Document) { d.Frontends[0].Port = 9 },
		"service": func(d *Document) { d.Frontends[0].Service = "x" }, "frontend's group": func(d *Document) { d.Frontends[0].Group = "x" },
		"backend port": func(d *Document) { d.Frontends[0].BackendPort = 9 }, "snat": func(d *Document) { d.Frontends[0].SNAT = SNATAlways },
		"affinity": func(d *Document) { d.Frontends[0].Affinity = time.Second }, "limit": func(d *Document) { d.Frontends[0].MaxConnections = 1 },
		"route": func(d *Document) { d.Routes = d.Routes[:1] }, "gateway": func(d *Document) { d.Routes[0].Gateway = d.Routes[0].Gateway.Next() },
		"ranges": func(d *Document) { d.Frontends[1].SourceRanges = d.Frontends[1].SourceRanges[:1] },
	} {
		d := sample()
		change(&d)
		if d.Hash() == base {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

// TestDiffPatch: the difference of any two documents leads from one to the other.
func TestDiffPatch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		from, to := randomDocument(random), randomDocument(random)
		delta := Diff(from, to)
		got, err := from.Patch(delta)
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash() != to.Hash() || got.Validate() != nil {
			t.Fatalf("patched document differs: %s", cmp.Diff(to, got, compareAddresses))
		}
		if !Diff(to, to).Empty() {
			t.Fatal("a document differs from itself")
		}
	}
}

// TestSum: many differences in one lead where they lead one by one.
func TestSum(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		base := randomDocument(random)
		var deltas []Delta
		last := base
		for range random.IntN(6) {
			next := randomDocument(random)
			deltas = append(deltas, Diff(last, next))
			last = next
		}
		got, err := base.Patch(Sum(base, deltas))
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash() != last.Hash() {
			t.Fatalf("the sum of %d differences leads elsewhere: %s", len(deltas), cmp.Diff(last, got, compareAddresses))
		}
	}
}

func randomDocument(r *rand.Rand) Document {
	d := Document{Cluster: "lab"}
	for g := range 4 {
		group := Group{Name: string(rune('a' + g))}
		for m := range r.IntN(4) {
			group.Members = append(group.Members, Member{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(m + 1 + r.IntN(2)*10)})})
		}
		slices.SortFunc(group.Members, func(a, b Member) int { return a.Address.Compare(b.Address) })
		group.Members = slices.Compact(group.Members)
		d.Groups = append(d.Groups, group)
	}
	for port := range 12 {
		if r.IntN(2) == 0 {
			d.Frontends = append(d.Frontends, Frontend{
				Address: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Protocol: TCP, Port: uint16(port + 1), Group: string(rune('a' + r.IntN(4))), BackendPort: uint16(r.IntN(3) + 1),
			})
		}
	}
	for n := range 4 {
		if r.IntN(2) == 0 {
			d.Routes = append(d.Routes, Route{
				Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n), 0}), 24), Gateway: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(2))}),
			})
		}
	}
	return d.Normalize()
}

func TestPatchRefusesOtherBase(t *testing.T) {
	for _, delta := range []Delta{
		{RemovedGroups: []string{"nodes5"}},
		{RemovedGroups: []string{"z"}},
		{RemovedGroups: []string{"a"}},
		{RemovedFrontends: []Key{{Address: netip.MustParseAddr("203.0.113.100"), Protocol: TCP, Port: 81}}},
	} {
		if d, err := sample().Patch(delta); err == nil {
			t.Errorf("%v gives %v", delta, d)
		}
	}
}

func TestWireRoundTrip(t *testing.T) {
	got, err := FromWire(ToWire(sample()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got, compareAddresses); diff != "" {
		t.Error(diff)
	}
}

// FuzzFromWire: whatever a client sends, decoding and judging neither panics nor
// accepts what does not survive a round trip.
func FuzzFromWire(f *testing.F) {
	seed, err := proto.Marshal(ToWire(sample()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		var w wire.Document
		if proto.Unmarshal(b, &w) != nil {
			return
		}
		d, err := FromWire(&w)
		if err != nil || d.Validate() != nil {
			return
		}
		if n := d.Normalize(); n.Hash() != d.Hash() {
			t.Errorf("a valid document is not normal: %s", cmp.Diff(n, d, compareAddresses))
		}
		again, err := FromWire(ToWire(d))
		if err != nil || again.Hash() != d.Hash() {
			t.Errorf("round trip: %v, %s", err, cmp.Diff(d, again, compareAddresses))
		}
	})
}
