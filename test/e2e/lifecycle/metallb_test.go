package lifecycle

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

var addr = netip.MustParseAddr

// says has a Service say something to MetalLB.
func says(key, value string) kit.Edit {
	return func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, key, value) }
}

// onePort leaves the first port only.
func onePort(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[:1] }

// fromMetalLB: MetalLB's objects and Services are there, its controller and speakers
// are not; each Service keeps its address, and is served by onelb.
func fromMetalLB(t *testing.T, w *kit.World) {
	text, err := os.ReadFile("testdata/metallb.yaml")
	w.Must(err)
	kinds, objects, _ := strings.Cut(string(text), "# ---- objects\n")
	w.Apply(kinds)
	if out, err := w.Kubectl(w.Context(), "wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "test=metallb"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.Apply(objects)
	keeps := map[string]netip.Addr{"from-metal": addr("10.20.0.150"), "shared-a": addr("10.20.0.151"), "shared-b": addr("10.20.0.151"), "asked": addr("10.20.0.159")}
	share := says("metallb.universe.tf/allow-shared-ip", "any text")
	w.Create(web, "from-metal", kit.V4)
	w.Create(web, "shared-a", kit.V4, share)
	w.Create(web, "shared-b", kit.V4, share, kit.OnPort(9000), onePort)
	w.Create(web, "asked", kit.V4, says("metallb.io/address-pool", "metal"), says("metallb.io/loadBalancerIPs", "10.20.0.159"))
	w.Create(web, "elsewhere", kit.V4)
	for name, a := range keeps {
		shows(w, name, a)
	}
	shows(w, "elsewhere", addr("10.20.0.9"))
	silence := speaker(w, keeps["from-metal"])
	watched := guard(w, keeps)
	migrate := func(args ...string) (string, error) {
		return w.Ctl(w.Context(), append([]string{"migrate", "metallb", "--cloud-config", w.CloudConfig()}, args...)...)
	}

	out, err := migrate()
	if err != nil || !containsAll(out, "AddressPool metal is made", "network private; exposure L2; addresses 10.20.0.150-10.20.0.159", "keeps 10.20.0.150", "stays where it is",
		"10.20.0.9 is in no IPAddressPool", "scale deployment controller --replicas=0", "4 Services to be moved, 1 stay", "Nothing was changed") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := w.Kubectl(w.Context(), "get", "addresspool", "metal"); err == nil {
		t.Fatalf("a plan made a pool: %s", out)
	}
	// MetalLB's controller would write the same Services: pools are made, and that is all.
	if out, err := migrate("--apply"); err == nil || !containsAll(err.Error(), "no Service was touched", "still writes them") {
		t.Fatalf("%v\n%s", err, out)
	}
	if svc := w.Get("from-metal"); svc.Annotations["onelb.io/address"] != "" {
		t.Fatalf("annotations %v, although MetalLB runs", svc.Annotations)
	}
	if out, err := w.Kubectl(w.Context(), "-n", "metallb-system", "scale", "deployment", "controller", "--replicas=0"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// One of them alone, then all; what cannot be moved is an error, and stays.
	if out, err := migrate("--apply", "--service", "default/asked"); err == nil || !strings.Contains(out, "Service default/asked keeps 10.20.0.159 (1 of ") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := migrate("--apply"); err == nil || !containsAll(err.Error(), "1 Services stay where they are") || strings.Contains(out, "asked keeps") || !containsAll(out, "from-metal keeps", "shared-a keeps", "shared-b keeps 10.20.0.151") {
		t.Fatalf("%v\n%s", err, out)
	}
	w.Remove("elsewhere")
	// A speaker still answers for one of them: that is awaited when it has ended.
	if out, err := migrate("--apply"); err != nil || !containsAll(out, "is onelb's already", "Others still answer", "delete daemonset speaker") {
		t.Fatalf("%v\n%s", err, out)
	}
	silence()
	out, err = migrate("--apply")
	if err != nil || !containsAll(out, "All Services are onelb's, and somebody answers", "remove MetalLB") {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := migrate("--apply"); err != nil || !strings.Contains(out, "0 Services to be moved, 0 stay where they are, 4 are onelb's") {
		t.Fatalf("%v\n%s", err, out)
	}
	watched()
	for name, a := range keeps {
		w.Shows(name, a)
		w.Answers(web, name, a)
	}
	auto, err := w.Kubectl(w.Context(), "get", "addresspool", "metal", "-o", "jsonpath={.spec.autoAssign}{.spec.avoidEdgeAddresses}")
	if err != nil || auto != "truetrue" {
		t.Errorf("autoAssign and avoidEdgeAddresses of the pool: %s, %v", auto, err)
	}
	if out, err := w.Kubectl(w.Context(), "delete", "crd,namespace", "-l", "test=metallb", "--wait=false"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	w.Patch("metal", `{"autoAssign":false,"quarantine":"1s"}`)
	w.Remove("from-metal", "shared-a", "shared-b", "asked")
}

// speaker has another host answer for an address, as a speaker of MetalLB does,
// until the returned function is called.
func speaker(w *kit.World, a netip.Addr) (end func()) {
	w.T.Helper()
	sets := w.Client().AppsV1().DaemonSets("metallb-system")
	set, err := sets.Get(w.Context(), "speaker", metav1.GetOptions{})
	w.Must(err)
	set.Status.DesiredNumberScheduled = 2
	_, err = sets.UpdateStatus(w.Context(), set, metav1.UpdateOptions{})
	w.Must(err)
	nl, err := w.LAN().Netlink()
	w.Must(err)
	link, err := nl.LinkByName("eth0")
	w.Must(err)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	w.Must(nl.AddrAdd(link, address))
	return func() {
		w.T.Helper()
		w.Must(nl.AddrDel(link, address))
		nl.Close()
		w.Must(sets.Delete(w.Context(), "speaker", metav1.DeleteOptions{}))
	}
}

func containsAll(text string, words ...string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
