package e2e_test

import (
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

const (
	namespace = metav1.NamespaceDefault
	port      = 8765

	// patience is the longest wait for an end state. Nothing is measured here.
	patience = kit.Patience
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "product", Programs: true}))
}

// web has a pod on each node, pair on the first two only.
var (
	web   = kit.Web
	pair  = kit.Pair
	setup = kit.Setup{Pools: kit.Pools, Workloads: []lab.Workload{web, pair}}
)

// world is the shared lab with what the tests of this package need beyond the kit.
type world struct {
	*kit.World
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{kit.New(t, &setup)}
}
