package lifecycle

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// blocks are the commands of a section of a page, the section named by its heading.
func blocks(t *testing.T, page, section string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var out []string
	for {
		_, after, more := strings.Cut(rest, "```sh\n")
		if !more {
			break
		}
		block, remains, closed := strings.Cut(after, "```")
		if !closed {
			t.Fatalf("%s: a block without end in %q", page, section)
		}
		out, rest = append(out, block), remains
	}
	if len(out) == 0 {
		t.Fatalf("%s: no commands in %q", page, section)
	}
	return out
}

// typed runs commands as they stand in the documentation.
func typed(w *kit.World, commands string) string {
	w.T.Helper()
	out, err := w.Shell(w.Context(), root, commands)
	if err != nil {
		w.T.Fatalf("%s\n%v", commands, err)
	}
	return out
}

// stopped ends the programs in the cluster, as their pods' end would.
func stopped(w *kit.World) {
	w.T.Helper()
	w.Must(w.CCM().Stop())
	for i := range w.Nodes() {
		w.Must(w.Agent(i + 1).Stop())
	}
}

// uninstallKeeps: the objects are gone, the addresses stay on hold in OpenNebula,
// and are the Services' again after the next installation. gc finds nothing to take.
func uninstallKeeps(t *testing.T, w *kit.World) {
	w.Create(web, "stays-lan", kit.V4, kit.InPool("lan"))
	w.Create(web, "stays-public", kit.V4, kit.InPool("internet"))
	had := map[string]netip.Addr{}
	for _, name := range []string{"stays-lan", "stays-public"} {
		had[name] = w.Served(web, name)[0]
	}
	recorded(w, had)

	stopped(w)
	typed(w, blocks(t, "docs/how-to/uninstall.md", "Keep the addresses")[0])
	if out, err := w.Kubectl(w.Context(), "get", "crd", "-o", "name"); err != nil || strings.Contains(out, "onelb.io") {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, a := range had {
		if err := onHold(w, a); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	w.Must(w.Install(w.Context()))
	w.Apply(setup.Pools)
	if out, err := w.Kubectl(w.Context(), "wait", "addresspools", "--all", "--for=condition=Ready", "--timeout=60s"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, a := range had {
		w.Eventually(name+" to have its address again", func(ctx context.Context) error {
			v, err := w.VirtualIP(ctx, a)
			if err == nil && (len(v.Spec.Services) != 1 || v.Spec.Services[0].Name != name) {
				err = fmt.Errorf("it is that of %v", v.Spec.Services)
			}
			return err
		})
		w.Shows(name, a)
		w.Answers(web, name, a)
	}
	// Pools that were not made again have left their reservations, and nothing else is unwanted.
	out, err := w.Ctl(w.Context(), "gc", "--cloud-config", w.CloudConfig(), "--dry-run")
	if err != nil || !containsAll(out, `goes back  reservation "lab-metal"`, `goes back  reservation "lab-lb"`, "2 to be given back") || strings.Contains(out, "hold of") {
		t.Errorf("%v\n%s", err, out)
	}
}

// recorded waits until OpenNebula knows for whom the addresses are.
func recorded(w *kit.World, had map[string]netip.Addr) {
	w.T.Helper()
	for name, a := range had {
		w.Eventually(name+" to be on record", func(context.Context) error {
			for _, pool := range []string{"lan", "internet"} {
				n, err := w.OneSim().VNetNamed(lab.OneUser, lab.ClusterName+"-"+pool)
				if err != nil {
					return err
				}
				for _, r := range n.Ranges {
					if strings.Contains(r.Attributes["ONELB_OWNERS"], a.String()+"="+kit.Namespace+"/"+name) {
						return onHold(w, a)
					}
				}
			}
			return fmt.Errorf("%s is on record for nobody", a)
		})
	}
}

func onHold(w *kit.World, a netip.Addr) error {
	for _, id := range w.Reservations() {
		for _, held := range w.OneSim().Holds(id) {
			if held == a {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not on hold", a)
}

// uninstallReleases: with the Services gone, the page's commands leave nothing of the
// pools that there are. What else is in OpenNebula, gc gives back, when no
// cloud-controller-manager is there any more.
func uninstallReleases(t *testing.T, w *kit.World) {
	w.Remove("stays-lan", "stays-public")
	first, then, found := strings.Cut(blocks(t, "docs/how-to/uninstall.md", "Give the addresses back")[0], "kubectl -n onelb-system delete ")
	if !found {
		t.Fatal("the programs are not removed")
	}
	typed(w, first)
	stopped(w) // as their Deployment and DaemonSet would be
	typed(w, "kubectl -n onelb-system delete "+then)
	if left := w.Reservations(); len(left) != 2 {
		t.Errorf("reservations are left: %v, want those that no AddressPool was for", left)
	}
	if _, err := w.Client().CoreV1().Namespaces().Get(w.Context(), lab.SystemNamespace, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("namespace: %v", err)
	}

	typed(w, "kubectl apply -f manifests/base/crds && kubectl wait crd/addresspools.onelb.io crd/virtualips.onelb.io --for=condition=Established --timeout=60s")
	gc := func(args ...string) (string, error) {
		return w.Ctl(w.Context(), append([]string{"gc", "--cloud-config", w.CloudConfig()}, args...)...)
	}
	if out, err := gc("--dry-run"); err != nil || !containsAll(out, "no AddressPool and no VirtualIP wants it", "2 to be given back") {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(w.Reservations()) != 2 {
		t.Fatal("a dry run changed something")
	}
	if out, err := gc("--grace=1s"); err != nil || strings.Count(out, "Gave back the reservation") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	w.Eventually("OpenNebula to have taken them back", func(context.Context) error {
		if left := w.Reservations(); len(left) > 0 {
			return fmt.Errorf("reservations are left: %v", left)
		}
		return nil
	})
}
