package appliance

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/onelb/onelb/loadbalancer/router"
)

const (
	forwardPrefix = "ONEAPP_VNF_NAT4_PORT_FWD"
	natVariable   = "ONEAPP_VNF_NAT4_ENABLED"
	// natMarker says that natVariable was set by a cluster, and not by the operator.
	natMarker     = "ONELB_NAT4_ENABLED"
	clusterPrefix = "ONELB_CLUSTER_"
	yes           = "YES"
)

// slots is how many variables of a kind a cluster has for itself.
const slots = 10000

var (
	addressName = regexp.MustCompile(`^ONEAPP_VROUTER_ETH([0-9]+)_VIP([0-9]+)$`)
	forwardName = regexp.MustCompile(`^` + forwardPrefix + `([0-9]+)$`)
	clusterName = regexp.MustCompile(`^` + clusterPrefix + `[0-9]{7}$`)
	floatName   = regexp.MustCompile(`^ETH([0-9]+)_VROUTER_IP$`)
	maskName    = regexp.MustCompile(`^ETH([0-9]+)_MASK$`)
)

// owner is one cluster on an appliance.
type owner struct {
	cluster  string
	identity string
	token    uint64
	digits   string // 7: the first part of the numbers of its variables
}

func newOwner(cluster, identity string, token uint64) owner {
	sum := sha256.Sum256([]byte(identity))
	return owner{cluster, identity, token, fmt.Sprintf("1%06d", binary.BigEndian.Uint64(sum[:])%1_000_000)}
}

// number is that of the cluster's n-th variable of a kind.
func (o owner) number(n int) string { return fmt.Sprintf("%s%04d", o.digits, n) }

func (o owner) forward(n int) string { return forwardPrefix + o.number(n) }

func (o owner) vip(eth, n int) string {
	return fmt.Sprintf("ONEAPP_VROUTER_ETH%d_VIP%s", eth, o.number(n))
}

// ledger is the name of the variable that says whose the others are.
func (o owner) ledger() string { return clusterPrefix + o.digits }

func (o owner) signature() string {
	return fmt.Sprintf("cluster=%s identity=%s token=%d", o.cluster, o.identity, o.token)
}

// owns reports whether a variable is the cluster's.
func (o owner) owns(name string) bool {
	number := ""
	if m := forwardName.FindStringSubmatch(name); m != nil {
		number = m[1]
	} else if m := addressName.FindStringSubmatch(name); m != nil {
		number = m[2]
	}
	return len(number) == len(o.number(0)) && strings.HasPrefix(number, o.digits)
}

// check refuses a context that another cluster, or a newer leader of ours, has signed.
func (o owner) check(context map[string]string) error {
	signed := context[o.ledger()]
	if signed == "" {
		return nil
	}
	fields := map[string]string{}
	for _, f := range strings.Fields(signed) {
		key, value, _ := strings.Cut(f, "=")
		fields[key] = value
	}
	if fields["identity"] != o.identity {
		return &router.RejectedError{Reason: router.ReasonIdentity, Message: fmt.Sprintf("variable %s of its context says %q: another cluster has the same variables; remove it if that cluster is gone", o.ledger(), signed)}
	}
	if token, err := strconv.ParseUint(fields["token"], 10, 64); err == nil && token > o.token {
		return &router.RejectedError{Reason: router.ReasonStaleToken, Message: fmt.Sprintf("a newer leader has written its context (%s)", signed)}
	}
	return nil
}

// signedBy reports whether the context has the cluster's signature, of whatever leader.
func (o owner) signedBy(context map[string]string) bool {
	return strings.HasPrefix(context[o.ledger()], fmt.Sprintf("cluster=%s identity=%s ", o.cluster, o.identity))
}

// shared reports whether another cluster has variables in the context.
func (o owner) shared(context map[string]string) bool {
	for name, value := range context {
		if clusterName.MatchString(name) && name != o.ledger() && value != "" {
			return true
		}
	}
	return false
}

// networkOf finds the interface on whose network an address is; the lowest one.
// Interfaces for management are none: keepalived leaves them alone.
func networkOf(context map[string]string, a netip.Addr) (eth int, ok bool) {
	for name := range context {
		m := maskName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || ok && n > eth || isYes(context[fmt.Sprintf("ETH%d_VROUTER_MANAGEMENT", n)]) {
			continue
		}
		for _, what := range []string{"NETWORK", "IP", "VROUTER_IP"} {
			if p, is := prefix(context[fmt.Sprintf("ETH%d_%s", n, what)], context[name]); is && p.Contains(a) {
				eth, ok = n, true
			}
		}
	}
	return eth, ok
}

func prefix(address, mask string) (netip.Prefix, bool) {
	a, err1 := netip.ParseAddr(address)
	m, err2 := netip.ParseAddr(mask)
	if err1 != nil || err2 != nil || !a.Is4() || !m.Is4() {
		return netip.Prefix{}, false
	}
	bits, size := net.IPMask(m.AsSlice()).Size()
	if size == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, bits).Masked(), true
}

// isYes reads a switch as the appliance does.
func isYes(s string) bool {
	switch strings.ToUpper(strings.TrimSpace(s)) {
	case yes, "TRUE", "T", "Y", "1":
		return true
	}
	return false
}

// foreign is what others than the cluster have in a context.
type foreign struct {
	addresses map[netip.Addr]string     // variable by address
	ports     map[netip.AddrPort]string // variable by port; of no address: of all
}

func (o owner) foreign(context map[string]string) foreign {
	f := foreign{map[netip.Addr]string{}, map[netip.AddrPort]string{}}
	for name, value := range context {
		if value == "" || o.owns(name) {
			continue
		}
		switch {
		case addressName.MatchString(name), floatName.MatchString(name):
			text, _, _ := strings.Cut(value, "/")
			if a, err := netip.ParseAddr(strings.TrimSpace(text)); err == nil {
				f.addresses[a] = name
			}
		case forwardName.MatchString(name):
			if at, ok := forwarded(value); ok {
				f.ports[at] = name
			}
		}
	}
	return f
}

// forwarded reads the port of ADDRESS:PORT:... or PORT:..., which is that of all
// addresses. In <ETHi_EPn>:PORT:... the address is one of the instance or of a
// floating address of somebody else, and so never the cluster's.
func forwarded(value string) (netip.AddrPort, bool) {
	parts := strings.Split(value, ":")
	address := netip.IPv4Unspecified()
	if a, err := netip.ParseAddr(strings.TrimSpace(parts[0])); err == nil && len(parts) > 1 {
		address, parts = a, parts[1:]
	}
	port, err := strconv.ParseUint(strings.TrimSpace(parts[0]), 10, 16)
	return netip.AddrPortFrom(address, uint16(port)), err == nil //nolint:gosec // 16 bits were asked for
}
