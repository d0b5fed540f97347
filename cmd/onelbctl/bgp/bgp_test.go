package bgp

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ktesting "k8s.io/client-go/testing"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/test/sample"
)

func run(t *testing.T, c inventory.Clients, args ...string) (string, error) {
	t.Helper()
	cmd := Command(func() (inventory.Clients, error) { return c, nil })
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func clients(c *sample.Cluster) inventory.Clients {
	return inventory.Clients{Kube: c.Kube(), OneLB: c.OneLB()}
}

func says(t *testing.T, out string, err error, words ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if not, no := strings.CutPrefix(w, "!"); strings.Contains(out, not) == no {
			t.Errorf("%q in\n%s", w, out)
		}
	}
}

func TestSessionsAndRoutes(t *testing.T) {
	c := sample.New().WithBGP()
	out, err := run(t, clients(c))
	says(t, out, err,
		"NODE    PEER  ADDRESS    ASN    STATE        FOR  ANNOUNCED  BFD\n",
		"node-1  rack  10.20.0.1  64512  Established  60m  1          Up\n",
		"192.0.2.7  routed  default/api  node-1, node-2, node-3\n", "!10.20.0.107")
	out, err = run(t, clients(c), "-o", "wide")
	says(t, out, err, "LOCAL-ASN  ROUTER-ID", "65001      10.20.0.11  0         IPv4      1m30s      yes\n", "node-1 (rack), node-2 (rack)")
	out, err = run(t, clients(c), "-o", "yaml")
	says(t, out, err, "asn: 65001\n", "- node: node-1\n", "localASN: 65001\n")
	out, err = run(t, clients(c), "-o", "json")
	var r Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Sessions) != 3 || len(r.Routes) != 1 || len(r.Routes[0].Announcers) != 3 {
		t.Errorf("%v: %+v", err, r)
	}
	says(t, out, err, `"gracefulRestart": true`)
	if _, err := run(t, clients(c), "-o", "xml"); err == nil {
		t.Error("xml is taken")
	}
}

func TestFilter(t *testing.T) {
	c := sample.New().WithBGP()
	out, err := run(t, clients(c), "--node", "node-2", "--peer", "rack")
	says(t, out, err, "node-2  rack", "!node-1", "default/api  node-2\n")
	for flag, name := range map[string]string{"--node": "node-9", "--peer": "rock"} {
		if _, err := run(t, clients(c), flag, name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestWhatIsNotWell(t *testing.T) {
	c := sample.New().WithBGP()
	s := c.Session("node-3")
	s.State, s.LastError, s.BFD = "Idle", "the peer was silent for the hold time", "Down"
	c.VirtualIPs[2].Status.Announcers = nil
	for _, o := range c.BGP {
		if n, ok := o.(*v1alpha1.BGPNode); ok && n.Name == "node-1" {
			n.Status.Problems = []string{"BGPPeer rack: spec.vrf: this node has no device blue"}
		}
	}
	out, err := run(t, clients(c))
	says(t, out, err, "node-3  rack  10.20.0.1  64512  Idle", "  node-3, rack: the peer was silent for the hold time\n", "default/api  nobody\n",
		"node-1 cannot follow: BGPPeer rack: spec.vrf")
	out, err = run(t, clients(sample.New()))
	says(t, out, err, "takes a BGPConfiguration and a BGPPeer")
	kube := clients(c)
	fake := c.OneLB()
	fake.PrependReactor("list", "bgpnodes", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "bgpnodes"}, "", errors.New("not you"))
	})
	kube.OneLB = fake
	out, err = run(t, kube)
	says(t, out, err, "BGPNodes not read", "not you")
}
