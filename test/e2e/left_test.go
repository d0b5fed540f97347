package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/lab"
)

// nothingLeft waits until nothing is left of Services that are gone: no VirtualIP,
// no hold in OpenNebula, no address in a kernel, no element in the router's table.
// What other Services have stays out of it.
func (w *world) nothingLeft() {
	w.t.Helper()
	w.eventually("nothing to be left of deleted Services", func(ctx context.Context) error {
		live, err := w.inUse(ctx)
		if err != nil {
			return err
		}
		return errors.Join(w.leftInKubernetes(ctx, live), w.leftInOpenNebula(live), w.leftOnHosts(live), w.leftInTable(ctx, live))
	})
}

// inUse are the addresses of the Services that exist: published and inner ones.
func (w *world) inUse(ctx context.Context) (map[netip.Addr]bool, error) {
	services, err := w.Client().CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	balanced := map[string]bool{}
	for _, s := range services.Items {
		balanced[string(s.UID)] = s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil
	}
	vips, err := w.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
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

func (w *world) leftInKubernetes(ctx context.Context, live map[netip.Addr]bool) error {
	vips, err := w.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
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

// reservations are all of ours in OpenNebula.
func (w *world) reservations() []int {
	one := w.OneSim()
	return append(one.Reservations(one.PrivateVNet), one.Reservations(one.PublicVNet)...)
}

func (w *world) leftInOpenNebula(live map[netip.Addr]bool) error {
	var errs []error
	for _, id := range w.reservations() {
		for _, a := range w.OneSim().Holds(id) {
			if !live[a] {
				errs = append(errs, fmt.Errorf("%s is on hold in network %d", a, id))
			}
		}
	}
	for a := range live {
		if !slices.ContainsFunc(w.reservations(), func(id int) bool { return slices.Contains(w.OneSim().Holds(id), a) }) {
			errs = append(errs, fmt.Errorf("%s is in use and not on hold", a))
		}
	}
	return errors.Join(errs...)
}

// hosts are those whose kernels may get addresses.
func (w *world) hosts() []*lab.Host {
	hosts := []*lab.Host{w.Router(1).Host}
	for _, n := range w.Nodes() {
		hosts = append(hosts, n.Host)
	}
	return hosts
}

// kernelAddresses are the single addresses that a host has beside its own.
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
		a = a.Unmap()
		if ones, bits := entry.Mask.Size(); ok && ones == bits && !a.IsLoopback() {
			out = append(out, a)
		}
	}
	return out, nil
}

// holders are the hosts in whose kernel an address is.
func (w *world) holders(a netip.Addr) []string {
	w.t.Helper()
	var out []string
	for _, h := range w.hosts() {
		addrs, err := kernelAddresses(h)
		w.must(err)
		if slices.Contains(addrs, a) {
			out = append(out, h.ShortName())
		}
	}
	return out
}

func (w *world) leftOnHosts(live map[netip.Addr]bool) error {
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

// table is what the router's kernel has of ours. Any other table is an error.
func (w *world) table(ctx context.Context) (string, error) {
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

// managed are the networks that addresses of frontends are in.
var managed = []netip.Prefix{
	netip.MustParsePrefix("203.0.113.96/27"), netip.MustParsePrefix("203.0.113.128/26"), netip.MustParsePrefix("203.0.113.192/29"),
	netip.MustParsePrefix("2001:db8:113::100/120"),
	netip.MustParsePrefix("10.20.0.96/27"), netip.MustParsePrefix("10.20.0.128/26"), netip.MustParsePrefix("10.20.0.192/29"),
	netip.MustParsePrefix("fd00:20::100/120"),
}

func (w *world) leftInTable(ctx context.Context, live map[netip.Addr]bool) error {
	text, err := w.table(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n,{}", r) }) {
		a, err := netip.ParseAddr(word)
		if err != nil || live[a] {
			continue
		}
		if slices.ContainsFunc(managed, func(p netip.Prefix) bool { return p.Contains(a) }) {
			errs = append(errs, fmt.Errorf("the router's table has %s", a))
		}
	}
	return errors.Join(errs...)
}
