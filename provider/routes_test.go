package provider

import (
	"strings"
	"testing"
)

// TestRoutesAreOffered: only with a router that is to have them, and with
// --cluster-cidr, without which the library's controller would end the program.
func TestRoutesAreOffered(t *testing.T) {
	const text = `endpoint: http://10.30.0.1:2633/RPC2
credentials: {env: ONE_AUTH}
cluster: lab
routers:
- {name: edge, endpoints: ["10.30.0.11:9443"], caFile: a, certFile: b, keyFile: c}
- {name: other, endpoints: ["10.30.0.12:9443"], caFile: a, certFile: b, keyFile: c, podRoutes: POD}
`
	t.Setenv("ONE_AUTH", "user:password")
	for pods, cidr := range map[string]string{"true": "10.244.0.0/16", "false": "10.244.0.0/16", "true ": ""} {
		c, err := New(strings.NewReader(strings.ReplaceAll(text, "POD", pods)))
		if err != nil {
			t.Fatal(err)
		}
		c.Configure(Options{ClusterCIDR: cidr})
		want := pods == "true" && cidr != ""
		if r, ok := c.Routes(); ok != want || (r != nil) != want {
			t.Errorf("podRoutes %s, --cluster-cidr=%s: %v", pods, cidr, ok)
		}
	}
}
