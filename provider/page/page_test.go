package page

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
	"github.com/onelb/onelb/test/sample"
)

// made is a page of a sample cluster, which a test may change between two requests.
func made(t *testing.T, s *sample.Cluster) *Page {
	t.Helper()
	p, err := New(Options{
		Inventory: func() *inventory.Inventory {
			inv, err := inventory.Read(t.Context(), inventory.Clients{Kube: s.Kube(), OneLB: s.OneLB()})
			if err != nil {
				t.Error(err)
			}
			return inv
		},
		Leader: "node-1", Version: "v1", Timeline: NewTimeline(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(p http.Handler, url string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, url, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestReport(t *testing.T) {
	p := made(t, sample.New())
	w := get(p, "/onelb/data/report.json")
	var r Report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, err, w.Body)
	}
	if len(r.Pools) != 2 || len(r.Addresses) != 2 || r.Manager == nil || r.Manager.Leader != "node-1" || r.Timeline == nil {
		t.Errorf("%+v", r)
	}
	if a := r.Addresses[0]; a.Address != sample.L2Address || a.Health != path.OK || a.Holder != "node-1" || a.Pods["node-1"] != 1 || a.Pods["node-2"] != 1 {
		t.Errorf("%+v", a)
	}
	if a := r.Addresses[1]; a.Router != "edge" || a.Forward != "NodePort" || len(a.Pods) != 2 {
		t.Errorf("%+v", a)
	}
}

func TestReportIsFetchedOnceUntilItChanges(t *testing.T) {
	s := sample.New()
	reads := 0
	p := made(t, s)
	read := p.o.Inventory
	p.o.Inventory = func() *inventory.Inventory { reads++; return read() }
	old := func() { p.latest.next = time.Time{} }
	tag := get(p, "/onelb/data/report.json").Header().Get("ETag")
	p.latest.next = time.Now().Add(time.Hour)
	if w := get(p, "/onelb/data/report.json", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() > 0 || reads != 1 {
		t.Errorf("%d, %d bytes, read %d times", w.Code, w.Body.Len(), reads)
	}
	old()
	if w := get(p, "/onelb/data/report.json", "If-None-Match", tag); w.Code != http.StatusNotModified || reads != 2 {
		t.Errorf("nothing has changed: %d, read %d times", w.Code, reads)
	}
	s.VirtualIPs[0].Status.Holder = nil
	old()
	w := get(p, "/onelb/data/report.json", "If-None-Match", tag)
	if w.Code != http.StatusOK || w.Header().Get("ETag") == tag || !strings.Contains(w.Body.String(), "no node answers for 10.20.0.107") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWays(t *testing.T) {
	p := made(t, sample.New())
	w := get(p, "/onelb/data/ways.json?service=default/web")
	var told struct {
		Ways []path.Way `json:"ways"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || len(told.Ways) != 1 || told.Ways[0].Address != sample.L2Address || len(told.Ways[0].Hops) != 4 {
		t.Errorf("%d %v %s", w.Code, err, w.Body)
	}
	for url, want := range map[string]int{
		"/onelb/data/ways.json":                        http.StatusBadRequest,
		"/onelb/data/ways.json?service=web":            http.StatusBadRequest,
		"/onelb/data/ways.json?service=default/nobody": http.StatusNotFound,
	} {
		if w := get(p, url); w.Code != want || !strings.Contains(w.Body.String(), `"error":`) {
			t.Errorf("%s: %d %s", url, w.Code, w.Body)
		}
	}
}

func TestPendingIsInTheWays(t *testing.T) {
	s := sample.New()
	waiting := sample.Service("default", "new", "")
	waiting.Annotations = map[string]string{"onelb.io/pool": "nope"}
	s.Services = append(s.Services, waiting)
	if w := get(made(t, s), "/onelb/data/ways.json?service=default/new"); !strings.Contains(w.Body.String(), "no AddressPool is called") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestEverythingIsServedAndKeepsBrowsersHere(t *testing.T) {
	p := made(t, sample.New())
	urls := []string{"/onelb/", "/onelb/data/report.json", "/onelb/nothing", DumpPath}
	files, err := fs.Glob(assets, "assets/*")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "index.html") {
			urls = append(urls, strings.Replace(f, "assets/", Path, 1))
		}
	}
	for _, url := range urls {
		w := get(p, url)
		if want := http.StatusOK; w.Code != want && !strings.HasSuffix(url, "nothing") {
			t.Errorf("%s: %d", url, w.Code)
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", url, w.Header())
		}
	}
	for file, kind := range map[string]string{"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml", "": "text/html"} {
		if got := get(p, Path+file).Header().Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s is %s", file, got)
		}
	}
	if w := get(p, "/"); w.Code != http.StatusFound || w.Header().Get("Location") != Path {
		t.Errorf("/: %d %v", w.Code, w.Header())
	}
	// A right to the page is none to what is beside it.
	if w := get(p, Path+"../debug/dump"); w.Code/100 != 3 {
		t.Errorf("a way around: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest(http.MethodPost, "/onelb/data/report.json", nil)
	w := httptest.NewRecorder()
	if p.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestAssetsNeedNothingElse: no address of another host, no script or style in the
// markup (the policy would refuse it), no markup made of texts, and each file that
// another names is there.
func TestAssetsNeedNothingElse(t *testing.T) {
	bad := regexp.MustCompile(`https?://[^\s"')]+|<style|style="|\son[a-z]+="|javascript:|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	named := regexp.MustCompile(`(?:src|href)="([^"#]+)"|from "\./([^"]+)"`)
	files, err := fs.Glob(assets, "assets/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := assets.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range bad.FindAllString(string(text), -1) {
			if m != "http://www.w3.org/2000/svg" {
				t.Errorf("%s has %q", f, m)
			}
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if name := "assets/" + m[1] + m[2]; !slices.Contains(files, name) {
				t.Errorf("%s names %s, which is not there", f, name)
			}
		}
	}
}

func TestDump(t *testing.T) {
	w := get(made(t, sample.New()), DumpPath)
	for _, want := range []string{"onelb v1, leader node-1", "== report ==", `"address": "10.20.0.107"`, "== goroutines ==", "serveDump"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in the dump", want)
		}
	}
}
