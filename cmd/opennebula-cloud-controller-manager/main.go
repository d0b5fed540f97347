// Command opennebula-cloud-controller-manager is the out-of-tree
// cloud-controller-manager for OpenNebula: the controllers of
// k8s.io/cloud-provider with provider "opennebula".
package main

import (
	"os"

	"k8s.io/apimachinery/pkg/util/wait"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	_ "k8s.io/component-base/logs/json/register"          // JSON log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/provider"
)

func main() {
	provider.LimitGarbage()
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		klog.ErrorS(err, "Cannot make the options")
		os.Exit(1)
	}
	provider.SetDefaults(o)
	var own provider.Options
	flags := cliflag.NamedFlagSets{}
	own.AddFlags(flags.FlagSet(provider.Name))
	command := app.NewCloudControllerManagerCommand(o, initCloud(&own), app.DefaultInitFuncConstructors,
		names.CCMControllerAliases(), flags, wait.NeverStop)
	command.Use = "opennebula-cloud-controller-manager"
	os.Exit(cli.Run(command))
}

// initCloud makes the provider once the flags have been read.
func initCloud(own *provider.Options) app.InitCloudFunc {
	return func(c *config.CompletedConfig) cloudprovider.Interface {
		provider.Reconnect(c)
		cfg := c.ComponentConfig.KubeCloudShared.CloudProvider
		cloud, err := cloudprovider.InitCloudProvider(cfg.Name, cfg.CloudConfigFile)
		ours, ok := cloud.(*provider.Cloud)
		if err == nil && !ok {
			klog.InfoS("Use --cloud-provider=" + provider.Name)
		}
		if err != nil || !ok {
			klog.ErrorS(err, "The cloud provider cannot be set up", "provider", cfg.Name, "cloudConfig", cfg.CloudConfigFile)
			klog.FlushAndExit(klog.ExitFlushTimeout, 1)
		}
		own.Complete(c)
		ours.Configure(*own)
		return ours
	}
}
