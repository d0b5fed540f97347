package lifecycle

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

// upgrade applies the base of before, gives addresses under its CRDs, applies the
// one of now and exchanges the programs one by one: objects, status and traffic stay.
func upgrade(t *testing.T, w *kit.World) {
	w.Apply(before(w))
	names := []string{"old-lan", "old-public", "old-shared-a", "old-shared-b"}
	w.Create(web, names[0], kit.V4, kit.InPool("lan"))
	w.Create(web, names[1], kit.V4, kit.InPool("internet"))
	w.Create(web, names[2], kit.V4, kit.InPool("lan"), kit.Annotate("share", "k"))
	w.Create(web, names[3], kit.V4, kit.InPool("lan"), kit.Annotate("share", "k"), kit.OnPort(9000), onePort)
	had := map[string]netip.Addr{}
	for _, name := range names {
		had[name] = w.Served(web, name)[0]
	}
	objects := virtualIPs(w)
	watched := guard(w, had)

	w.Must(w.ApplyManifests(w.Context()))
	w.Must(w.CCM().Restart())
	for i := range w.Nodes() {
		w.Must(w.Agent(i + 1).Restart())
		w.Must(w.WaitReady(w.Context()))
	}
	w.Must(w.Router(1).Agent().Restart())
	w.Must(w.WaitReady(w.Context()))

	for _, name := range names {
		w.Shows(name, had[name])
		w.Answers(web, name, had[name])
	}
	w.Create(web, "new", kit.V4, kit.InPool("lan"))
	w.Served(web, "new")
	watched()
	for name, uid := range objects {
		w.Eventually("VirtualIP "+name+" to be the same", func(ctx context.Context) error {
			v, err := w.OneLB.VirtualIPs().Get(ctx, name, metav1.GetOptions{})
			if err == nil && string(v.UID) != uid {
				err = errors.New("it was made anew")
			}
			if err == nil && len(v.Spec.Services) == 0 {
				err = fmt.Errorf("it has no Service: %+v", v.Spec)
			}
			return err
		})
	}
	w.Remove(append(names, "new")...)
	w.NothingLeft()
}

// before is the base of an earlier state.
func before(w *kit.World) string {
	w.T.Helper()
	f, err := os.Open("testdata/base-2026-11-22.yaml.gz")
	w.Must(err)
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	w.Must(err)
	text, err := io.ReadAll(z)
	w.Must(err)
	return string(text)
}

// virtualIPs are the UIDs of those that Services have, by name.
func virtualIPs(w *kit.World) map[string]string {
	w.T.Helper()
	list, err := w.OneLB.VirtualIPs().List(w.Context(), metav1.ListOptions{})
	w.Must(err)
	out := map[string]string{}
	for i := range list.Items {
		if v := &list.Items[i]; len(v.Spec.Services) > 0 {
			out[v.Name] = string(v.UID)
		}
	}
	if len(out) == 0 {
		w.T.Fatal("no Service has a VirtualIP")
	}
	return out
}
