package page

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
)

func held(by string, epoch int64, since time.Time) *v1alpha1.VirtualIP {
	v := &v1alpha1.VirtualIP{Spec: v1alpha1.VirtualIPSpec{Address: "10.20.0.107", Services: []v1alpha1.ServiceReference{{Namespace: "default", Name: "web"}}}}
	if by != "" {
		v.Status.Holder = &v1alpha1.Holder{Name: by, Epoch: epoch, Since: metav1.NewMicroTime(since)}
	}
	return v
}

func claimed(status metav1.ConditionStatus, at time.Time) *v1alpha1.VirtualIP {
	v := held("node-1", 1, at)
	v.Status.Conditions = []metav1.Condition{{Type: v1alpha1.VirtualIPAddressConflict, Status: status, LastTransitionTime: metav1.NewTime(at), Message: "02:00:00:00:00:01 claims it"}}
	return v
}

func TestTimeline(t *testing.T) {
	begin := time.Now().Add(-time.Hour)
	at := func(minutes int) time.Time { return begin.Add(time.Duration(minutes) * time.Minute) }
	for name, tt := range map[string]struct {
		was, is *v1alpha1.VirtualIP
		want    []Entry
	}{
		"new":           {&v1alpha1.VirtualIP{}, held("", 0, begin), nil},
		"taken":         {held("", 0, begin), held("node-1", 1, at(1)), []Entry{{Kind: Taken, To: "node-1", Takeover: 1}}},
		"same":          {held("node-1", 1, at(1)), held("node-1", 1, at(1)), nil},
		"taken again":   {held("node-1", 1, at(1)), held("node-1", 2, at(2)), []Entry{{Kind: Taken, To: "node-1", Takeover: 2}}},
		"moved":         {held("node-1", 1, at(1)), held("node-2", 2, at(2)), []Entry{{Kind: Moved, From: "node-1", To: "node-2", Takeover: 2}}},
		"lost":          {held("node-1", 1, at(1)), held("", 0, begin), []Entry{{Kind: Lost, From: "node-1"}}},
		"conflict":      {held("node-1", 1, at(1)), claimed("True", at(1)), []Entry{{Kind: Conflict, Detail: "02:00:00:00:00:01 claims it"}}},
		"still":         {claimed("True", at(1)), claimed("True", at(1)), nil},
		"settled":       {claimed("True", at(1)), claimed("False", at(1)), []Entry{{Kind: Settled}}},
		"never claimed": {held("node-1", 1, at(1)), claimed("False", at(1)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewTimeline()
			l.Handler().OnUpdate(tt.was, tt.is)
			got := l.Entries()
			if len(got) != len(tt.want) {
				t.Fatalf("%+v, want %+v", got, tt.want)
			}
			for i, e := range got {
				w := tt.want[i]
				if e.Kind != w.Kind || e.From != w.From || e.To != w.To || e.Takeover != w.Takeover || e.Detail != w.Detail || e.Address != "10.20.0.107" || e.Services[0] != "default/web" || e.Time.IsZero() {
					t.Errorf("%+v, want %+v", e, w)
				}
			}
		})
	}
}

func TestTimelineKeepsTheNewestInOrder(t *testing.T) {
	l := NewTimeline()
	begin := time.Now()
	for i := range 2 * kept { // the even ones first, and so out of order
		n := i * 2
		if n >= 2*kept {
			n = n - 2*kept + 1
		}
		l.Handler().OnAdd(held("node-1", int64(n), begin.Add(time.Duration(n)*time.Second)), true)
	}
	got := l.Entries()
	if len(got) != kept || got[0].Takeover != 2*kept-1 {
		t.Fatalf("%d entries, the first %+v", len(got), got[0])
	}
	for i := range got[1:] {
		if got[i+1].Time.After(got[i].Time) {
			t.Errorf("entry %d is newer than the one before", i+1)
		}
	}
}
