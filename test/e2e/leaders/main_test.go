// Package leaders runs two replicas of the cloud-controller-manager and takes the
// leadership from one to the other at any moment.
package leaders

import (
	"os"
	"testing"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

var setup = kit.Setup{Pools: kit.Pools, Workloads: []lab.Workload{kit.Web}}

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "leaders", Programs: true}))
}
