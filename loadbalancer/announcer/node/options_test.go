package node

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestFlags(t *testing.T) {
	o := Defaults()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.AddFlags(fs)
	must(t, fs.Parse([]string{"--node-name=n", "--address-lifetime=5s", "--gossip-port=1234", "--metrics-address=",
		"--drain-cordoned=false", "--even=false", "--kube-proxy-health=", "--daemonset=a/b"}))
	must(t, o.Validate())
	if o.DaemonSet != "a/b" {
		t.Errorf("got %q", o.DaemonSet)
	}
	if o.DrainCordoned || o.Even || o.KubeProxyHealth != "" {
		t.Errorf("got %+v", o)
	}
	if o.NodeName != "n" || o.AddressLifetime != 5*time.Second || o.GossipPort != 1234 || o.MetricsAddress != "" || o.StateDir != "/var/lib/onelb" {
		t.Errorf("got %+v", o)
	}
}

func TestValidateTellsAllAtOnce(t *testing.T) {
	o := Options{AddressLifetime: 1500 * time.Millisecond, GossipPort: 70000, KubeProxyHealth: "localhost", DaemonSet: "onelb-node"}
	err := o.Validate()
	if !errors.Is(err, ErrOptions) {
		t.Fatal(err)
	}
	for _, flag := range []string{"--node-name", "--gossip-key-file", "--gossip-port", "--state-dir", "--address-lifetime", "--kube-proxy-health", "--daemonset"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
	if _, err := New(o); !errors.Is(err, ErrOptions) {
		t.Errorf("New: %v", err)
	}
}
