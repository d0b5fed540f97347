// Package annotation holds the annotations that onelb reads on Services, as
// typed keys. The reference page is generated from All, so an annotation that
// is not listed there does not exist.
package annotation

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Prefix is in front of every key of ours.
const Prefix = "onelb.io/"

// MaxRetain is the longest that an address is kept: a year.
const MaxRetain = 8760 * time.Hour

// MaxConnectionLimit is the largest limit of connections.
const MaxConnectionLimit = 1_000_000

// Key is one annotation.
type Key struct {
	Name    string // whole name, with prefix
	Value   string // form of the value, for the reference page
	Meaning string
}

var (
	// Pool names the AddressPool that the Service's addresses come from.
	Pool = Key{Name: Prefix + "pool", Value: "name of an AddressPool", Meaning: "Take the addresses from this pool, also if its `autoAssign` is false. A Service that has addresses of another pool gets new ones."}
	// Address asks for certain addresses.
	Address = Key{Name: Prefix + "address", Value: "one address, or one IPv4 and one IPv6 address with a comma between", Meaning: "Give the Service these very addresses. They have to be in a pool and free. Takes precedence over `spec.loadBalancerIP`, which is read too."}
	// Retain keeps addresses for the next Service of the same name.
	Retain = Key{Name: Prefix + "retain", Value: "a duration from `1s` to `8760h`, for example `24h`", Meaning: "When the Service is deleted, or is no longer of type LoadBalancer, keep its addresses for as long for the next Service of the same namespace and name. See [keep an address](../how-to/keep-an-address.md)."}
	// ConnectionLimit bounds the open connections of each of the Service's ports.
	ConnectionLimit = Key{Name: Prefix + "connection-limit", Value: "a number from `1` to `1000000`", Meaning: "With exposure `Router`: at most so many connections may be open at a time on each address and port of the Service, of all clients together, on each instance of the router. The first packet of one too many is dropped, and clients send it again, as to a server whose queue is full. Other exposures refuse it."}
	// Share names a group of Services that have one address.
	Share = Key{Name: Prefix + "share", Value: "a key: letters, digits, `-`, `_`, `.`, at most 63", Meaning: "Share one address with the other Services of the namespace (of all namespaces, if the pool has `shareAcrossNamespaces`) that have the same key and the same pool. Their ports must not clash and their `externalTrafficPolicy` must be the same; with `Local`, their selectors too. See [share an address](../how-to/share-an-address.md)."}
)

// All lists every annotation, sorted by name.
func All() []Key { return []Key{Address, ConnectionLimit, Pool, Retain, Share} }

// Request is what a Service asks for through annotations and the deprecated
// spec.loadBalancerIP.
type Request struct {
	Pool      string       // empty: any
	Addresses []netip.Addr // sorted, at most one for each family
	Share     string       // empty: an address of its own
	Retain    time.Duration
	// ConnectionLimit is 0 if there is none.
	ConnectionLimit uint32
}

// Parse reads a Service's annotations. An unknown key with our prefix, or a
// value that cannot be read, is an error: nothing that somebody asked for is
// passed over in silence.
func Parse(annotations map[string]string, loadBalancerIP string) (Request, error) {
	var r Request
	if err := known(annotations); err != nil {
		return r, err
	}
	r.Pool = strings.TrimSpace(annotations[Pool.Name])
	if text, ok := annotations[Share.Name]; ok {
		if problems := validation.IsValidLabelValue(text); text == "" || len(problems) > 0 {
			return r, fmt.Errorf("annotation %s %q is not a key: give 1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends", Share.Name, text)
		}
		r.Share = text
	}
	if text, ok := annotations[Retain.Name]; ok {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > MaxRetain {
			return r, fmt.Errorf("annotation %s %q is not a duration from 1s to 8760h: write for example 90m or 24h", Retain.Name, text)
		}
		r.Retain = d
	}
	var err error
	if r.ConnectionLimit, err = ParseConnectionLimit(annotations); err != nil {
		return r, err
	}
	source, text := "annotation "+Address.Name, annotations[Address.Name]
	if text == "" {
		source, text = "spec.loadBalancerIP", loadBalancerIP
	}
	if text == "" {
		return r, nil
	}
	addrs, err := parseAddresses(text)
	if err != nil {
		return r, fmt.Errorf("%s %q: %w", source, text, err)
	}
	r.Addresses = addrs
	return r, nil
}

// ParseConnectionLimit reads that annotation alone; 0: it is not there.
func ParseConnectionLimit(annotations map[string]string) (uint32, error) {
	text, ok := annotations[ConnectionLimit.Name]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 1 || n > MaxConnectionLimit {
		return 0, fmt.Errorf("annotation %s %q is not a number from 1 to %d; without a limit, leave it out", ConnectionLimit.Name, text, MaxConnectionLimit)
	}
	return uint32(n), nil
}

func known(annotations map[string]string) error {
	var unknown []string
	for name := range annotations {
		if !strings.HasPrefix(name, Prefix) {
			continue
		}
		found := false
		for _, k := range All() {
			found = found || k.Name == name
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	names := make([]string, 0, len(All()))
	for _, k := range All() {
		names = append(names, k.Name)
	}
	return fmt.Errorf("unknown annotation %s: remove it, or use one of %s", strings.Join(unknown, ", "), strings.Join(names, ", "))
}

func parseAddresses(text string) ([]netip.Addr, error) {
	var out []netip.Addr
	for part := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("not an IP address: %w", err)
		}
		a = a.Unmap()
		if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return nil, fmt.Errorf("%s cannot be the address of a Service", a)
		}
		for _, b := range out {
			if a.Is4() == b.Is4() {
				return nil, fmt.Errorf("%s and %s are of the same family: give at most one for each", b, a)
			}
		}
		out = append(out, a)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Less(out[j]) })
	return out, nil
}
