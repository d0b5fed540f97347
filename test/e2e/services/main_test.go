// Package services asks for everything that a Service may ask for, of the real API
// server, with packets from clients.
package services

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

const (
	v4 = corev1.IPv4Protocol
	v6 = corev1.IPv6Protocol
)

var (
	web, pair = kit.Web, kit.Pair
	setup     = kit.Setup{Pools: kit.Pools, Workloads: []lab.Workload{web, pair}}
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "services", Programs: true}))
}
