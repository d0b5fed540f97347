package provider

import (
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
)

// TestClientLimits: what the flags give is what our clients get, and an
// operator's flags win.
func TestClientLimits(t *testing.T) {
	for _, c := range []struct {
		args    []string
		qps     float32
		burst   int
		workers int32
	}{
		{nil, 2000, 4000, 32},
		{[]string{"--kube-api-qps=7", "--kube-api-burst=8", "--concurrent-service-syncs=9"}, 7, 8, 9},
	} {
		o, err := options.NewCloudControllerManagerOptions()
		if err != nil {
			t.Fatal(err)
		}
		SetDefaults(o)
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		flags := o.Flags(nil, nil, names.CCMControllerAliases(), nil, nil)
		for _, set := range flags.FlagSets {
			fs.AddFlagSet(set)
		}
		if err := fs.Parse(append(c.args, "--cloud-config=x", "--master=https://127.0.0.1:1", "--authentication-skip-lookup", "--secure-port=0")); err != nil {
			t.Fatal(err)
		}
		cfg, err := o.Config(nil, nil, names.CCMControllerAliases(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		rest := cfg.ClientBuilder.ConfigOrDie(userAgent)
		if rest.QPS != c.qps || rest.Burst != c.burst || cfg.ComponentConfig.ServiceController.ConcurrentServiceSyncs != c.workers {
			t.Errorf("%v: QPS %v, burst %d, %d workers", c.args, rest.QPS, rest.Burst, cfg.ComponentConfig.ServiceController.ConcurrentServiceSyncs)
		}
	}
}
