package browser

import (
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/page"
	"github.com/onelb/onelb/test/sample"
)

var (
	wanted   = flag.Bool("browser", false, "fetch a browser and run the tests in it")
	pictures = flag.String("pictures", "", "directory for the pictures of the documentation")
)

// served is a page of a cluster in which not all is well, with further Services.
func served(t *testing.T, further ...string) string {
	t.Helper()
	if !*wanted {
		t.Skip("no -browser: make page fetches one and runs this")
	}
	s := sample.New()
	timeline := page.NewTimeline()
	add := func(name, address string, change func(*v1alpha1.VirtualIP)) {
		svc := sample.Service("shop", name, address)
		v := sample.VirtualIP(address, "main", svc)
		change(v)
		s.Services, s.VirtualIPs = append(s.Services, svc), append(s.VirtualIPs, v)
		slice := s.Slices[0].DeepCopy()
		slice.Namespace, slice.Name, slice.Labels = "shop", name, map[string]string{discoveryv1.LabelServiceName: name}
		slice.Endpoints[1].NodeName = ptr.To("node-3")
		s.Slices = append(s.Slices, slice)
	}
	holder := func(node string, epoch int64, ago time.Duration) *v1alpha1.Holder {
		return &v1alpha1.Holder{Name: node, Interface: "eth0", Epoch: epoch, Since: metav1.NewMicroTime(time.Now().Add(-ago))}
	}
	for i := range 6 {
		add(fmt.Sprintf("api-%d", i+1), fmt.Sprintf("10.20.0.%d", 110+i), func(v *v1alpha1.VirtualIP) {
			was := v.DeepCopy()
			was.Status.Holder = holder("node-3", 1, time.Hour)
			v.Status.Holder = holder(fmt.Sprintf("node-%d", i%2+1), 2, time.Duration(8+i)*time.Minute)
			timeline.Handler().OnUpdate(&v1alpha1.VirtualIP{Spec: was.Spec}, was)
			timeline.Handler().OnUpdate(was, v)
		})
	}
	add("orphan", "10.20.0.120", func(*v1alpha1.VirtualIP) {}) // nobody holds it
	for i, name := range further {
		add(name, fmt.Sprintf("10.20.0.%d", 130+i), func(v *v1alpha1.VirtualIP) { v.Status.Holder = holder("node-2", 1, 20*time.Minute) })
	}
	waiting := sample.Service("shop", "waiting", "")
	waiting.Annotations = map[string]string{"onelb.io/pool": "nope"}
	s.Services = append(s.Services, waiting)
	s.Pools[0].Status.IPv4.Used, s.Pools[0].Status.IPv4.Free, s.Pools[0].Status.IPv4.Held = 85, 15, 84
	s.Namespaces = append(s.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	p, err := page.New(page.Options{
		Leader: "node-1", Version: "v0.1.0", Timeline: timeline,
		Inventory: func() *inventory.Inventory {
			inv, err := inventory.Read(t.Context(), inventory.Clients{Kube: s.Kube(), OneLB: s.OneLB()})
			if err != nil {
				t.Error(err)
			}
			return inv
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return server.URL + page.Path
}

// has checks what the page became.
func has(t *testing.T, dom string, want []string, not ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(dom, text) {
			t.Errorf("no %q", text)
		}
	}
	for _, text := range not {
		if strings.Contains(dom, text) {
			t.Errorf("%q is there", text)
		}
	}
	if t.Failed() {
		t.Log(dom)
	}
}

func TestPageShowsTheReport(t *testing.T) {
	url := served(t, "<img src=x onerror=alert(1)>")
	dom, console := newChromium(t).run(t, url, "--dump-dom")
	has(t, dom, []string{
		"led from node-1, version v0.1.0", ">live<", "IPv4: 85 of 100 in use, 84 on hold", "virtual router", "no AddressPool is called", "shop/waiting",
		"10.20.0.107", "203.0.113.105", "edge (NodePort)", "no node answers for 10.20.0.120", "moved from node-3 to node-1", "(takeover 2)",
		"<title>node-1 → node-3", "&lt;img src=x onerror=alert(1)&gt;",
	}, "<img src=x", "undefined", "NaN", "[object")
	if console != "" {
		t.Errorf("the console says:\n%s", console)
	}
}

func TestSearchAndDetails(t *testing.T) {
	url := served(t)
	dom, console := newChromium(t).run(t, url+"#q=shop%2Forphan&service=shop%2Forphan", "--dump-dom")
	has(t, dom, []string{"10.20.0.120", "holder", "no node answers for 10.20.0.120", "a node needs a ready agent", ">nobody<"}, "10.20.0.107", "203.0.113.105<", "shop/api-1")
	if console != "" {
		t.Errorf("the console says:\n%s", console)
	}
}

// TestPictures takes them in both colours; the files are small and a page apart.
func TestPictures(t *testing.T) {
	url := served(t)
	c := newChromium(t)
	dir := *pictures
	if dir == "" {
		dir = t.TempDir()
	}
	for name, hash := range map[string]string{"page-light.png": "#theme=light", "page-dark.png": "#theme=dark&q=api-1&service=shop%2Fapi-1"} {
		file := filepath.Join(dir, name)
		c.run(t, url+hash, "--window-size=1100,1150", "--screenshot="+file)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 20_000 {
			t.Errorf("%s has %d bytes: is it empty?", name, info.Size())
		}
	}
}
