package trouble

import (
	"testing"
	"time"

	"github.com/onelb/onelb/test/e2e/kit"
)

// TestAPIServerComesBack: the API server is away for longer than it takes client-go
// to pause for half a minute between attempts. The cloud-controller-manager and the
// agents find it again much sooner. kube-proxy does not, it has taken 100 s: so the
// new Service gets no packets here, and this is the last test of the package.
func TestAPIServerComesBack(t *testing.T) {
	w := world{kit.New(t, &setup)}
	w.Create(kit.Web, "outlasts", kit.InPool("lan"))
	addrs := w.Served(kit.Web, "outlasts")
	k := w.knock(addrs...)
	w.Must(w.StopAPIServer())
	time.Sleep(40 * time.Second)
	w.Must(w.StartAPIServer(t.Context()))
	begin := time.Now()
	w.Create(kit.Web, "afterwards", kit.InPool("lan"), kit.V4)
	fresh := w.Addresses("afterwards")
	shown := time.Since(begin)
	w.Eventually("one holder", w.oneHolder(fresh[0]))
	held := time.Since(begin)
	t.Logf("address after %s, held after %s", shown.Round(time.Millisecond), held.Round(time.Millisecond))
	if held > 25*time.Second {
		t.Errorf("an address was given %s, and held %s after the API server was back", shown, held)
	}
	k.undisturbed(t)
	w.Remove("outlasts", "afterwards")
	w.NothingLeft()
}
