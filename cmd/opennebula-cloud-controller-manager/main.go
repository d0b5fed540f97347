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
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		klog.ErrorS(err, "Cannot make the options")
		os.Exit(1)
	}
	provider.SetDefaults(o)
	command := app.NewCloudControllerManagerCommand(o, initCloud, app.DefaultInitFuncConstructors,
		names.CCMControllerAliases(), cliflag.NamedFlagSets{}, wait.NeverStop)
	command.Use = "opennebula-cloud-controller-manager"
	os.Exit(cli.Run(command))
}

func initCloud(c *config.CompletedConfig) cloudprovider.Interface {
	cfg := c.ComponentConfig.KubeCloudShared.CloudProvider
	cloud, err := cloudprovider.InitCloudProvider(cfg.Name, cfg.CloudConfigFile)
	if err == nil && cloud == nil {
		klog.InfoS("Use --cloud-provider=" + provider.Name)
	}
	if err != nil || cloud == nil {
		klog.ErrorS(err, "The cloud provider cannot be set up", "provider", cfg.Name, "cloudConfig", cfg.CloudConfigFile)
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
	return cloud
}
