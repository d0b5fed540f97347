package kit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

// NothingLeft waits until nothing is left of Services that are gone: no VirtualIP,
// no hold in OpenNebula, no address in a kernel, no element in the router's table.
// What other Services have stays out of it.
func (w *World) NothingLeft() {
	w.T.Helper()
	w.Every(400*time.Millisecond, Patience, "nothing to be left of deleted Services", func(ctx context.Context) error {
		live, err := w.InUse(ctx)
		if err != nil {
			return err
		}
		return errors.Join(w.leftInKubernetes(ctx, live), w.leftInOpenNebula(live), w.leftOnHosts(live), w.leftInTable(ctx, live))
	})
}

// InUse are the addresses of the Services that exist: published and inner ones.
func (w *World) InUse(ctx context.Context) (map[netip.Addr]bool, error) {
	services, err := w.Client().CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	balanced := map[string]bool{}
	for _, s := range services.Items {
		balanced[string(s.UID)] = s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil
	}
	vips, err := w.OneLB.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]bool{}
	for _, v := range vips.Items {
		if slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return balanced[string(r.UID)] }) {
			out[netip.MustParseAddr(v.Spec.Address)] = true
		}
	}
	return out, nil
}

func (w *World) leftInKubernetes(ctx context.Context, live map[netip.Addr]bool) error {
	vips, err := w.OneLB.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range vips.Items {
		// IPAM itself keeps what it gives back to OpenNebula in quarantine.
		fenced := v.Status.Phase == v1alpha1.PhaseQuarantined && v.Spec.ReleaseTime == nil
		if !live[netip.MustParseAddr(v.Spec.Address)] && !fenced {
			errs = append(errs, fmt.Errorf("VirtualIP %s is %s, holder %v", v.Name, v.Status.Phase, v.Status.Holder))
		}
	}
	return errors.Join(errs...)
}

// Reservations are all of ours in OpenNebula.
func (w *World) Reservations() []int {
	one := w.OneSim()
	return append(one.Reservations(one.PrivateVNet), one.Reservations(one.PublicVNet)...)
}

func (w *World) leftInOpenNebula(live map[netip.Addr]bool) error {
	var errs []error
	for _, id := range w.Reservations() {
		for _, a := range w.OneSim().Holds(id) {
			if !live[a] {
				errs = append(errs, fmt.Errorf("%s is on hold in network %d", a, id))
			}
		}
	}
	for a := range live {
		if !slices.ContainsFunc(w.Reservations(), func(id int) bool { return slices.Contains(w.OneSim().Holds(id), a) }) {
			errs = append(errs, fmt.Errorf("%s is in use and not on hold", a))
		}
	}
	return errors.Join(errs...)
}

// hosts are those whose kernels may get addresses.
func (w *World) hosts() []*lab.Host {
	hosts := []*lab.Host{w.Router(1).Host}
	for _, n := range w.Nodes() {
		hosts = append(hosts, n.Host)
	}
	return hosts
}

// kernelAddresses are the addresses of pools that a host has.
func kernelAddresses(h *lab.Host) ([]netip.Addr, error) {
	nl, err := h.Netlink()
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	list, err := nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, entry := range list {
		a, ok := netip.AddrFromSlice(entry.IP)
		if a = a.Unmap(); ok && isManaged(a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// Holders are the hosts in whose kernel an address is.
func (w *World) Holders(a netip.Addr) []string {
	w.T.Helper()
	var out []string
	for _, h := range w.hosts() {
		addrs, err := kernelAddresses(h)
		w.Must(err)
		if slices.Contains(addrs, a) {
			out = append(out, h.ShortName())
		}
	}
	return out
}

func (w *World) leftOnHosts(live map[netip.Addr]bool) error {
	var errs []error
	for _, h := range w.hosts() {
		addrs, err := kernelAddresses(h)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if !live[a] {
				errs = append(errs, fmt.Errorf("%s has %s", h.ShortName(), a))
			}
		}
	}
	return errors.Join(errs...)
}

// Table is what the router's kernel has of ours. Any other table is an error.
func (w *World) Table(ctx context.Context) (string, error) {
	router := w.Router(1).Host
	tables, err := w.NFT(ctx, router, "list", "tables")
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(strings.TrimSpace(tables), "\n") {
		if line != "table ip onelb" && line != "table ip6 onelb" {
			return "", fmt.Errorf("the router has a foreign table: %q", line)
		}
	}
	return w.NFT(ctx, router, "list", "ruleset")
}

// isManaged says whether an address is one that pools give: .100 to .199 and
// ::100 to ::163 of both networks.
func isManaged(a netip.Addr) bool {
	for _, p := range []netip.Prefix{lab.PublicV6, lab.PrivateV6} {
		if p.Contains(a) {
			first := p.Addr().As16()
			first[14] = 1
			return !a.Less(netip.AddrFrom16(first))
		}
	}
	if !lab.PublicV4.Contains(a) && !lab.PrivateV4.Contains(a) {
		return false
	}
	last := a.As4()[3]
	return last >= 100 && last < 200
}

func (w *World) leftInTable(ctx context.Context, live map[netip.Addr]bool) error {
	text, err := w.Table(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n,{}", r) }) {
		a, err := netip.ParseAddr(word)
		if err != nil || live[a] {
			continue
		}
		if isManaged(a) {
			errs = append(errs, fmt.Errorf("the router's table has %s", a))
		}
	}
	return errors.Join(errs...)
}
