package crash

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	servicecontroller "k8s.io/cloud-provider/controllers/service"
	"k8s.io/component-base/metrics/prometheus/controllers"

	"github.com/onelb/onelb/provider"
	"github.com/onelb/onelb/test/lab/proc"
)

// timing lives through what takes minutes in seconds. A late call comes within
// the fence, as it does with the defaults.
var timing = provider.Timing{
	Compare: 1500 * time.Millisecond, OrphanGrace: time.Second, Fence: 4 * time.Second, Adopt: time.Second,
	FormerGrace: 5 * time.Second, OwnersDelay: 300 * time.Millisecond,
	Sweep: 500 * time.Millisecond, Retry: 200 * time.Millisecond, Offers: 200 * time.Millisecond,
}

// instance is one life of the CCM.
type instance struct {
	*caller
	name string
	end  func() // ends what is left of it after its death, at once or later
}

// builder gives every controller the instance's one configuration.
type builder struct{ config *rest.Config }

func (b builder) Config(string) (*rest.Config, error) { return b.config, nil }
func (b builder) ConfigOrDie(string) *rest.Config     { return b.config }
func (b builder) Client(string) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(b.config)
}
func (b builder) ClientOrDie(string) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(b.config)
}

// cloudConfig is that of an instance.
func (w *world) cloudConfig(name string) string {
	return fmt.Sprintf("endpoint: %s/%s/RPC2\ncredentials:\n  file: %s\ncluster: %s\n%s",
		w.gate.url, name, filepath.Join(w.dir, "one_auth"), clusterName, w.more)
}

// startInstance starts an instance inside this process; armed may be nil.
func (w *world) startInstance(armed *target) (*instance, error) {
	w.lives++
	name := fmt.Sprintf("i%d", w.lives)
	cloud, err := provider.New(strings.NewReader(w.cloudConfig(name)))
	if err != nil {
		return nil, err
	}
	cloud.SetTiming(w.pace)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	config := &rest.Config{Host: w.gate.url + "/" + name + "/kube", QPS: 500, Burst: 1000, Transport: transport}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	shared := informers.NewSharedInformerFactory(kube, 0)
	services, err := servicecontroller.New(cloud, kube, shared.Core().V1().Services(), shared.Core().V1().Nodes(),
		clusterName, utilfeature.DefaultFeatureGate)
	if err != nil {
		return nil, err
	}
	c := w.gate.admit(name)
	if armed != nil {
		c.arm(*armed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cloud.Initialize(builder{config}, ctx.Done())
	cloud.SetInformers(shared)
	shared.Start(ctx.Done())
	w.running.Go(func() { services.Run(ctx, 4, controllers.NewControllerManagerMetrics("crash")) })
	var once sync.Once
	return &instance{caller: c, name: name, end: func() {
		once.Do(func() {
			c.kill()
			cancel()
			// Whoever does not look at its context is let go when the rest has ended.
			time.AfterFunc(300*time.Millisecond, func() {
				close(c.gone)
				transport.CloseIdleConnections()
			})
		})
	}}, nil
}

// startProcess starts the real program; it dies by SIGKILL.
func (w *world) startProcess(armed target) (*instance, error) {
	w.lives++
	name := fmt.Sprintf("p%d", w.lives)
	config, kubeconfig := filepath.Join(w.dir, name+".yaml"), filepath.Join(w.dir, name+".kubeconfig")
	if err := writeFiles(map[string]string{config: w.cloudConfig(name), kubeconfig: fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: crash, cluster: {server: "%s/%s/kube"}}]
users: [{name: crash, user: {}}]
contexts: [{name: crash, context: {cluster: crash, user: crash}}]
current-context: crash
`, w.gate.url, name)}); err != nil {
		return nil, err
	}
	c := w.gate.admit(name)
	c.arm(armed)
	u := w.plane.spawner.NewUnit(here{}, proc.Spec{
		Name: name, Path: filepath.Join(w.dir, "bin", program), Log: filepath.Join(w.dir, "ccm.log"),
		Args: []string{
			"--cloud-provider=" + provider.Name, "--cloud-config=" + config, "--kubeconfig=" + kubeconfig,
			"--leader-elect=false", "--secure-port=0", "--v=2",
		},
	})
	if err := u.Start(); err != nil {
		return nil, err
	}
	w.running.Go(func() {
		<-c.dead
		_ = u.Kill() // its only error is that the process is gone
		close(c.gone)
	})
	return &instance{caller: c, name: name, end: func() { c.kill(); <-c.gone }}, nil
}
