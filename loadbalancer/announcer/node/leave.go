package node

import (
	"context"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

const (
	// askTimeout is how long the API server may take to say whether the agent's end
	// is for good. Without an answer it is a restart.
	askTimeout = time.Second
	// relieveTime is how long a node waits for others to take what it has. With
	// askTimeout it must be well within the pod's terminationGracePeriodSeconds.
	relieveTime = 5 * time.Second
	// shuttingDown is in the message of the condition Ready that a kubelet writes
	// before it ends the pods of a node that is switched off in order.
	shuttingDown = "node is shutting down"
)

// leave hands the addresses over if the agent ends for good. It is called when the
// agent has been told to end, while all of it still works.
func (a *Agent) leave(ctx context.Context, src *source, engine *announcer.Engine, speaker *bgp.Speaker) {
	why := a.forGood(ctx, src)
	if why == "" {
		return
	}
	logger := klog.FromContext(ctx)
	logger.Info("Ending for good; handing over addresses", "why", why)
	ctx, cancel := context.WithTimeout(ctx, relieveTime)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { speaker.Leave(ctx) })
	both.Go(func() { engine.HandOver(ctx) })
	both.Wait()
	logger.Info("Ending now", "relieved", ctx.Err() == nil)
}

// forGood says why no agent will be started on this node soon; empty: one will, or
// nobody knows.
func (a *Agent) forGood(ctx context.Context, src *source) string {
	obj, found, err := src.nodes.GetStore().GetByKey(a.o.NodeName)
	node, ok := obj.(*corev1.Node)
	if !found || !ok || err != nil {
		return "" // the API server has not answered yet
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue && strings.Contains(c.Message, shuttingDown) {
			return "the node is shutting down"
		}
	}
	if a.o.DaemonSet == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	namespace, name, _ := strings.Cut(a.o.DaemonSet, "/")
	d, err := a.kube.DaemonSet(ctx, namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return "the DaemonSet is gone"
	case err != nil:
		klog.FromContext(ctx).Error(err, "Could not read the DaemonSet; ending as for a restart", "daemonSet", a.o.DaemonSet)
		return ""
	case d.Metadata.DeletionTimestamp != nil:
		return "the DaemonSet is being deleted"
	}
	for key, value := range d.Spec.Template.Spec.NodeSelector {
		if got, has := node.Labels[key]; !has || got != value {
			return "the DaemonSet does not select this node"
		}
	}
	return ""
}
