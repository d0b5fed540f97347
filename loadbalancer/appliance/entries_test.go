package appliance

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/router"
)

// TestEntries: what cannot be expressed is refused, and with it the Service's other
// ports of the address, but nobody else's.
func TestEntries(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *router.Document)
		want   error
	}{
		"fine": {func(*router.Document) {}, nil},
		"udp too": {func(d *router.Document) {
			f := d.Frontends[0]
			f.Protocol = router.UDP
			d.Frontends = append(d.Frontends, f)
		}, nil},
		"udp alone": {func(d *router.Document) { d.Frontends[0].Protocol = router.UDP }, errUDPOnly},
		"udp elsewhere": {func(d *router.Document) {
			f := d.Frontends[0]
			f.Protocol, f.BackendPort = router.UDP, 99
			d.Frontends = append(d.Frontends, f)
		}, errTargets},
		"sctp": {func(d *router.Document) { d.Frontends[0].Protocol = router.SCTP }, errSCTP},
		"ipv6": {func(d *router.Document) { d.Frontends[0].Address = netip.MustParseAddr("2001:db8::1") }, ErrFamily},
		"ranges": {func(d *router.Document) {
			d.Frontends[0].SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, errRanges},
		"sticky": {func(d *router.Document) { d.Frontends[0].Affinity = time.Minute }, errAffinity},
		"limit":  {func(d *router.Document) { d.Frontends[0].MaxConnections = 1 }, errLimit},
		"snat":   {func(d *router.Document) { d.Frontends[0].SNAT = router.SNATAlways }, errSNAT},
		"spread": {func(d *router.Document) {
			d.Groups[0].Members = append(d.Groups[0].Members, router.Member{Address: netip.MustParseAddr("10.20.0.200")})
		}, errSpread},
		"no backend": {func(d *router.Document) { d.Groups[0].Members = nil }, errSpread},
		"checked":    {func(d *router.Document) { d.Groups[0].Check = &router.Check{Port: 1} }, errSpread},
	} {
		t.Run(name, func(t *testing.T) {
			d := document([]uint16{80, 443}, []uint16{80})
			c.change(&d)
			entries, refused := entriesOf(d.Normalize())
			if c.want == nil {
				if len(entries) != 3 || len(refused) != 0 {
					t.Errorf("%v, refused %v", entries, refused)
				}
				return
			}
			left := slices.DeleteFunc(entries, func(e entry) bool { return e.service == "default/s1" })
			if c.want == ErrFamily {
				left = slices.DeleteFunc(left, func(e entry) bool { return e.port == 443 }) // of another address
			}
			errs := slices.Collect(maps.Values(refused))
			if len(left) != 0 || len(errs) != 1 || !errors.Is(errs[0], c.want) {
				t.Errorf("left %v, refused %v, want %v", left, refused, c.want)
			}
		})
	}
}

// TestSharedPort: a UDP port that another Service joins does not take the TCP one away.
func TestSharedPort(t *testing.T) {
	d := document([]uint16{53})
	f := d.Frontends[0]
	f.Protocol, f.Service, f.Group = router.UDP, "default/a", "other"
	d.Frontends = append(d.Frontends, f)
	d.Groups = append(d.Groups, router.Group{Name: "other", Members: []router.Member{{Address: netip.MustParseAddr("10.20.0.77")}}})
	entries, refused := entriesOf(d.Normalize())
	if len(entries) != 1 || entries[0].service != "default/s0" || refused[culprit{f.Address, "default/a"}] == nil || len(refused) != 1 {
		t.Errorf("%v, refused %v", entries, refused)
	}
}

func TestUnservable(t *testing.T) {
	service := func(change func(s *corev1.ServiceSpec), ports ...corev1.ServicePort) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Ports: ports}}
		change(&s.Spec)
		return s
	}
	nothing := func(*corev1.ServiceSpec) {}
	tcp, udp := corev1.ServicePort{Port: 53}, corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP}
	limited := service(nothing, tcp)
	limited.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{"onelb.io/connection-limit": "7"}}
	for name, c := range map[string]struct {
		service *corev1.Service
		want    error
	}{
		"fine":   {service(nothing, tcp, udp), nil},
		"udp":    {service(nothing, udp), errUDPOnly},
		"sctp":   {service(nothing, tcp, corev1.ServicePort{Port: 1, Protocol: corev1.ProtocolSCTP}), errSCTP},
		"ranges": {service(func(s *corev1.ServiceSpec) { s.LoadBalancerSourceRanges = []string{"10.0.0.0/8"} }, tcp), errRanges},
		"sticky": {service(func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP }, tcp), errAffinity},
		"limit":  {limited, errLimit},
	} {
		if err := Unservable(c.service); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for name, c := range map[string]struct {
		spec v1alpha1.RouterSpec
		want error
	}{
		"fine":     {v1alpha1.RouterSpec{Forward: v1alpha1.ForwardVIP, SNAT: v1alpha1.SNATAuto}, nil},
		"nodeport": {v1alpha1.RouterSpec{Forward: v1alpha1.ForwardNodePort}, errSpread},
		"pod":      {v1alpha1.RouterSpec{Forward: v1alpha1.ForwardPod}, errSpread},
		"snat":     {v1alpha1.RouterSpec{Forward: v1alpha1.ForwardVIP, SNAT: v1alpha1.SNATAlways}, errSNAT},
	} {
		if err := UnservablePool(&c.spec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestTooManyAddresses: those that are there stay, whatever their order.
func TestTooManyAddresses(t *testing.T) {
	o := newOwner("lab", identity, 1)
	var entries []entry
	for i := range maxAddresses {
		entries = append(entries, entry{address: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), port: 80, service: fmt.Sprintf("s%d", i)})
	}
	context := map[string]string{"ETH0_MASK": "255.255.255.0", "ETH0_IP": "203.0.113.250", "ONEAPP_VROUTER_ETH1_VIP0": "10.0.0.1"}
	last := entries[len(entries)-1]
	context[o.vip(0, 0)] = last.address.String() + "/32"
	refused := o.refusals(entries, []map[string]string{context})
	gone := culprit{entries[len(entries)-2].address, entries[len(entries)-2].service}
	if len(refused) != 1 || refused[gone] == nil || !strings.Contains(refused[gone].Error(), "keepalived") {
		t.Errorf("%v", refused)
	}
}

func TestOwns(t *testing.T) {
	o := newOwner("lab", identity, 1)
	for name, want := range map[string]bool{
		o.forward(0): true, o.forward(9999): true, o.vip(3, 12): true,
		o.ledger(): false, "ONEAPP_VNF_NAT4_PORT_FWD0": false, "ONEAPP_VNF_NAT4_PORT_FWD" + o.digits: false,
		o.forward(0) + "0": false, o.forward(0) + "X": false, "X" + o.forward(0): false, "ONEAPP_VROUTER_ETH0_VIP1": false,
		newOwner("lab", "other", 1).forward(0): false,
	} {
		if got := o.owns(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
