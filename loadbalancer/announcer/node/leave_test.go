package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	onelbfake "github.com/onelb/onelb/api/client/fake"
)

func ourDaemonSet(selector map[string]string) *appsv1.DaemonSet {
	d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "onelb-system", Name: "onelb-node"}}
	d.Spec.Template.Spec.NodeSelector = selector
	return d
}

func TestForGood(t *testing.T) {
	ready := func(status corev1.ConditionStatus, message string) []corev1.NodeCondition {
		return []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Message: message}}
	}
	deleted := ourDaemonSet(nil)
	deleted.DeletionTimestamp, deleted.Finalizers = &metav1.Time{Time: time.Unix(7, 0)}, []string{"foregroundDeletion"}
	for _, c := range []struct {
		name       string
		daemonSet  *appsv1.DaemonSet // nil: there is none
		conditions []corev1.NodeCondition
		unnamed    bool // no --daemonset
		unknown    bool // the API server has not told of nodes
		fail       error
		want       bool
	}{
		{name: "a restart", daemonSet: ourDaemonSet(nil)},
		{name: "a restart where a selector matches", daemonSet: ourDaemonSet(map[string]string{"edge": "yes"})},
		{name: "gone", want: true},
		{name: "being deleted", daemonSet: deleted, want: true},
		{name: "another node", daemonSet: ourDaemonSet(map[string]string{"edge": "no"}), want: true},
		{name: "a label that the node lacks", daemonSet: ourDaemonSet(map[string]string{"other": ""}), want: true},
		{name: "nobody says which one", unnamed: true},
		{name: "not known yet", unknown: true},
		{name: "the API server is away", fail: errors.New("connection refused")},
		{name: "shutdown", daemonSet: ourDaemonSet(nil), conditions: ready(corev1.ConditionFalse, "[x, node is shutting down]"), want: true},
		{name: "shutdown, and nobody says which DaemonSet", unnamed: true, conditions: ready(corev1.ConditionFalse, "node is shutting down"), want: true},
		{name: "not ready for another reason", daemonSet: ourDaemonSet(nil), conditions: ready(corev1.ConditionFalse, "PLEG is not healthy")},
	} {
		t.Run(c.name, func(t *testing.T) {
			kube := fake.NewSimpleClientset()
			if c.daemonSet != nil {
				must(t, kube.Tracker().Add(c.daemonSet))
			}
			if c.fail != nil {
				kube.PrependReactor("get", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, c.fail })
			}
			o := Defaults()
			o.NodeName, o.DaemonSet = "node-1", "onelb-system/onelb-node"
			if c.unnamed {
				o.DaemonSet = ""
			}
			a := newAgent(o, fakeKube{kube}, onelbfake.New())
			src, err := newSource(a.kube, a.onelb, true)
			must(t, err)
			if !c.unknown {
				must(t, src.nodes.GetStore().Add(&corev1.Node{
					ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"edge": "yes"}},
					Status:     corev1.NodeStatus{Conditions: c.conditions},
				}))
			}
			if why := a.forGood(t.Context(), src); (why != "") != c.want {
				t.Errorf("for good because %q", why)
			}
		})
	}
}

// An agent that ends for good waits for others to take over; one that restarts does not.
func TestEnd(t *testing.T) {
	m := newMachine(t)
	m.o.DaemonSet = "onelb-system/onelb-node"
	stop := m.start()
	eventually(t, "the address is held", func() bool { return m.has(netip.MustParseAddr(vipName)) })
	began := time.Now()
	stop()
	if took := time.Since(began); took < relieveTime {
		t.Errorf("the DaemonSet is gone, and it ended after %v", took)
	}
	if !m.has(netip.MustParseAddr(vipName)) {
		t.Error("nobody took the address, and it is gone")
	}
}

// What the API server answers is understood.
func TestReadsADaemonSet(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/apis/apps/v1/namespaces/onelb-system/daemonsets/onelb-node" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`))
			return
		}
		if r.Header.Get("Accept") != "application/json" {
			w.WriteHeader(http.StatusNotAcceptable)
		}
		_, _ = w.Write([]byte(`{"kind":"DaemonSet","metadata":{"deletionTimestamp":"2026-01-02T03:04:05Z"},"spec":{"template":{"spec":{"nodeSelector":{"a":"b"}}}}}`))
	}))
	defer server.Close()
	k, err := newKube(&rest.Config{Host: server.URL})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d, err := k.DaemonSet(ctx, "onelb-system", "onelb-node")
	must(t, err)
	if d.Metadata.DeletionTimestamp == nil || d.Spec.Template.Spec.NodeSelector["a"] != "b" {
		t.Errorf("read %+v", d)
	}
	if _, err := k.DaemonSet(ctx, "onelb-system", "other"); !apierrors.IsNotFound(err) {
		t.Errorf("one that is not there: %v", err)
	}
}
