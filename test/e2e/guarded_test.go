package e2e_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/e2e/kit"
)

// TestGuarded serves a Service from a pool with guard alias: its address is an
// alias of three machines, another one of them takes over, and nothing is left.
func TestGuarded(t *testing.T) {
	w := newWorld(t)
	w.asAdmin("one.vn.add_ar", w.OneSim().PrivateVNet, `AR=[TYPE="IP4",IP="10.20.0.240",SIZE="4",SHARED="YES"]`)
	w.Pool("guarded", "network: {name: private}, exposure: L2, autoAssign: false, quarantine: 1s, "+
		`ranges: [{start: 10.20.0.240, end: 10.20.0.243}], chunkSize: 2, reserveAhead: 1, l2: {guard: alias}`)
	w.PoolIs("guarded", metav1.ConditionTrue, ipam.ReasonReserved)
	w.Create(web, "guarded", kit.InPool("guarded"), families(corev1.IPv4Protocol))
	a := w.waitServed("guarded")[0]
	w.Eventually("three candidates that are attached", func(ctx context.Context) error {
		v, err := w.OneLB.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		if err != nil {
			return err
		}
		on := w.aliased(a)
		for _, c := range v.Spec.Guard.Candidates {
			if c.State != v1alpha1.CandidateAttached || !slices.Contains(on, int(c.Machine)) {
				return fmt.Errorf("candidates %v, aliases on VMs %v", v.Spec.Guard.Candidates, on)
			}
		}
		if len(on) != 3 || v.Status.Holder == nil {
			return fmt.Errorf("aliases on VMs %v, holder %v", on, v.Status.Holder)
		}
		return nil
	})
	v, err := w.OneLB.VirtualIPs().Get(w.Context(), v1alpha1.VirtualIPName(a), metav1.GetOptions{})
	w.Must(err)
	first := v.Status.Holder.Name
	exclude := func(value string) {
		body := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, corev1.LabelNodeExcludeBalancers, value)
		_, err := w.Client().CoreV1().Nodes().Patch(context.WithoutCancel(t.Context()), first, types.MergePatchType, []byte(body), metav1.PatchOptions{})
		w.Must(err)
	}
	exclude(`""`)
	defer exclude("null")
	w.Eventually("another candidate holds it", func(ctx context.Context) error {
		v, err := w.OneLB.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		if err == nil && (v.Status.Holder == nil || v.Status.Holder.Name == first) {
			err = fmt.Errorf("holder %v", v.Status.Holder)
		}
		return err
	})
	w.waitServed("guarded")
	w.Remove("guarded")
	w.RemovePool("guarded")
	if on := w.aliased(a); len(on) > 0 {
		t.Errorf("aliases on VMs %v", on)
	}
	w.NothingLeft()
}

// aliased are the machines of nodes that have the address as an alias.
func (w *world) aliased(a netip.Addr) []int {
	w.T.Helper()
	var out []int
	for _, id := range w.OneSim().NodeVMs {
		vm, err := w.OneSim().VM(id)
		w.Must(err)
		for _, n := range vm.NICs {
			if n.Alias && n.IP == a {
				out = append(out, id)
			}
		}
	}
	return out
}

// asAdmin makes a call of OpenNebula's administrator about a network.
func (w *world) asAdmin(method string, network int, template string) {
	w.T.Helper()
	endpoint, stop, err := w.OneSim().Start("127.0.0.1:0")
	w.Must(err)
	defer stop()
	var text strings.Builder
	w.Must(xml.EscapeText(&text, []byte(template)))
	body := fmt.Sprintf(`<?xml version="1.0"?><methodCall><methodName>%s</methodName><params><param><value><string>oneadmin:opennebula</string></value></param>`+
		`<param><value><int>%d</int></value></param><param><value><string>%s</string></value></param></params></methodCall>`, method, network, text.String())
	req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, endpoint, strings.NewReader(body))
	w.Must(err)
	resp, err := http.DefaultClient.Do(req)
	w.Must(err)
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	w.Must(err)
	if !strings.Contains(string(answer), "<boolean>1</boolean>") {
		w.T.Fatalf("%s: %s", method, answer)
	}
}
