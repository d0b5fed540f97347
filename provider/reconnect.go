package provider

import (
	"k8s.io/client-go/informers"
	"k8s.io/cloud-provider/app/config"

	"github.com/onelb/onelb/api/courtesy"
	"github.com/onelb/onelb/api/reconnect"
)

// Reconnect makes all that reads from the API server find it again soon after it
// was away, and events give way to what Services wait for. Call it before anything
// was made of the configuration. What the library has made by then are its watches,
// which are replaced, and the client of leader election and events, which has
// deadlines of its own.
func Reconnect(c *config.CompletedConfig) {
	reconnect.Configure(c.Kubeconfig) // the client builder has this very object
	courtesy.Configure(c.Kubeconfig)
	c.VersionedClient = c.ClientBuilder.ClientOrDie("shared-informers")
	c.SharedInformers = informers.NewSharedInformerFactory(c.VersionedClient,
		c.ComponentConfig.Generic.MinResyncPeriod.Duration)
}
