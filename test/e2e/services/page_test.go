package services

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/overview"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// viewer is somebody with credentials, on the management network.
type viewer struct{ cfg *rest.Config }

func (v viewer) Connect() (inventory.Clients, error) {
	kube, err := kubernetes.NewForConfig(v.cfg)
	return inventory.Clients{Kube: kube}, err
}

func (v viewer) Config() (*rest.Config, error) { return v.cfg, nil }

// TestPage: the page of a real cloud-controller-manager, which asks the real API
// server who may see it; the administrator sees it by onelbctl page.
func TestPage(t *testing.T) {
	w := newWorld(t)
	w.Must(w.CCM().Stop())
	other := w.NewCCM("ccm-page", 10268, "--page-port=10269")
	w.Must(other.Start())
	t.Cleanup(func() {
		if err := errors.Join(other.Stop(), w.CCM().Start()); err != nil {
			t.Error(err)
		}
	})
	w.Create(web, "seen", kit.V4, kit.InPool("lan"))
	address := w.Served(web, "seen")[0].String()
	admin, err := w.RESTConfig(w.Control())
	w.Must(err)
	origin, browser := w.opens(t, viewer{admin})

	var told struct {
		overview.Report
		Timeline []struct{ Kind, Address, To string }
	}
	w.Eventually("the report to show the Service", func(ctx context.Context) error {
		code, body, err := fetch(ctx, browser, origin+"/onelb/data/report.json")
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %s %w", code, body, errors.Join(err, errors.New("no report")))
		}
		if err := json.Unmarshal(body, &told); err != nil {
			return err
		}
		for _, a := range told.Addresses {
			if a.Address == address && a.Holder != "" && a.Health == "ok" && len(a.Pods) == 3 && a.Services[0] == kit.Namespace+"/seen" {
				for _, e := range told.Timeline {
					if e.Address == address && e.Kind == "taken" && e.To == a.Holder {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("%s", body)
	})
	for path, want := range map[string]string{
		"/onelb/": "<title>onelb</title>", "/onelb/data/ways.json?service=" + kit.Namespace + "/seen": address, "/debug/dump": "== goroutines ==",
	} {
		if code, body, err := fetch(t.Context(), browser, origin+path); err != nil || code != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %v, without %q", path, code, err, want)
		}
	}

	stranger, guest := w.account("page-stranger"), w.account("page-guest")
	role, err := os.ReadFile("../../../manifests/components/page/rbac.yaml")
	w.Must(err)
	w.Apply(string(role))
	w.kubectl("create", "clusterrolebinding", "page-guest", "--clusterrole=onelb:page", "--serviceaccount="+kit.Namespace+":page-guest")
	t.Cleanup(func() {
		_, err := w.Kubectl(context.Background(), "delete", "clusterrole/onelb:page", "clusterrolebinding/page-guest")
		if err != nil {
			t.Error(err)
		}
	})
	for name, tt := range map[string]struct {
		token, url string
		want       int
	}{
		"nobody":            {"", "10269/onelb/data/report.json", http.StatusForbidden}, // the anonymous user, as everywhere
		"nonsense":          {"nonsense", "10269/onelb/", http.StatusUnauthorized},
		"stranger":          {stranger, "10269/onelb/", http.StatusForbidden},
		"stranger, data":    {stranger, "10269/onelb/data/report.json", http.StatusForbidden},
		"stranger, profile": {stranger, "10268/debug/pprof/goroutine?debug=1", http.StatusForbidden},
		"guest":             {guest, "10269/onelb/data/report.json", http.StatusOK},
		"guest, dump":       {guest, "10269/debug/dump", http.StatusForbidden},
	} {
		w.Eventually(name, func(ctx context.Context) error {
			c := &http.Client{Transport: &http.Transport{DialContext: w.Control().DialContext, TLSClientConfig: insecure(), DisableKeepAlives: true}}
			code, body, err := fetch(ctx, c, "https://"+lab.ControlAddr.String()+":"+tt.url, tt.token)
			if err != nil {
				return err
			}
			if code != tt.want {
				return fmt.Errorf("%d, want %d: %.200s", code, tt.want, body)
			}
			return nil
		})
	}
	w.Remove("seen")
	w.NothingLeft()
	w.running(other)
}
