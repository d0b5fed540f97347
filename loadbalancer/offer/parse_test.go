package offer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
)

func network(id int32, attributes ...string) Network {
	n := Network{ID: id, Name: "public", Owner: "oneadmin", Attributes: map[string]string{"BRIDGE": "br0"}}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		n.Attributes[key] = value
	}
	return n
}

func base(id int32) v1alpha1.AddressPoolSpec {
	return v1alpha1.AddressPoolSpec{
		Network: v1alpha1.NetworkReference{ID: &id}, Exposure: v1alpha1.ExposureL2, AutoAssign: new(true), ChunkSize: 8,
		ReserveAhead: ptr.To[int32](4), Quarantine: &metav1.Duration{Duration: 30 * time.Second},
	}
}

func TestParse(t *testing.T) {
	name, got, err := parse(network(5, "ONELB_POOL= public "))
	if diff := cmp.Diff(base(5), got); diff != "" || name != "public" || err != nil {
		t.Errorf("%q, %v\n%s", name, err, diff)
	}
	_, got, err = parse(network(5, "ONELB_POOL=p", "ONELB_ROUTER=edge", "ONELB_FORWARD=vip", "ONELB_INNER_POOL=inner", "ONELB_AUTO_ASSIGN=no",
		"ONELB_PRIORITY=7", "ONELB_RANGES=10.0.0.1-10.0.0.9, 2001:db8::1 - 2001:DB8::9", "ONELB_CHUNK_SIZE=16", "ONELB_RESERVE_AHEAD=0",
		"ONELB_QUARANTINE=2m", "ONELB_AVOID_EDGE=YES", "ONELB_DRAINING=true", "ONELB_CLUSTERS=a,b", "ONELB_ERROR=old"))
	want := base(5)
	want.Exposure, want.Router = v1alpha1.ExposureRouter, &v1alpha1.RouterSpec{Name: "edge", Forward: v1alpha1.ForwardVIP, InnerPool: "inner", SNAT: v1alpha1.SNATAuto}
	want.AutoAssign, want.Priority, want.ChunkSize, want.ReserveAhead = new(false), 7, 16, ptr.To[int32](0)
	want.Quarantine, want.AvoidEdgeAddresses, want.Draining = &metav1.Duration{Duration: 2 * time.Minute}, true, true
	want.Ranges = []v1alpha1.AddressRange{{Start: "10.0.0.1", End: "10.0.0.9"}, {Start: "2001:db8::1", End: "2001:db8::9"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParsePods(t *testing.T) {
	_, got, err := parse(network(5, "ONELB_POOL=p", "ONELB_ROUTER=edge", "ONELB_FORWARD=POD", "ONELB_SNAT=NEVER"))
	want := base(5)
	want.Exposure, want.Router = v1alpha1.ExposureRouter, &v1alpha1.RouterSpec{Name: "edge", Forward: v1alpha1.ForwardPod, SNAT: v1alpha1.SNATNever}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseRoute(t *testing.T) {
	_, got, err := parse(network(5, "ONELB_POOL=p", "ONELB_ROUTER=edge", "ONELB_FORWARD=route"))
	want := base(5)
	want.Exposure, want.Router = v1alpha1.ExposureRouter, &v1alpha1.RouterSpec{Name: "edge", Forward: v1alpha1.ForwardRoute, SNAT: v1alpha1.SNATAuto}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestParseSaysAllThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"ONELB_POOL=Public":                                    "ONELB_POOL \"Public\" must consist",
		"ONELB_POOL=" + strings.Repeat("a", 64):                "must consist",
		"ONELB_SNAT=SOMETIMES":                                 "must be AUTO, ALWAYS or NEVER",
		"ONELB_POLICY=x":                                       "unknown setting ONELB_POLICY",
		"ONELB_AUTO_ASSIGN=maybe":                              "must be YES or NO",
		"ONELB_AUTO_ASSIGN=":                                   "must be YES or NO",
		"ONELB_PRIORITY=-1":                                    "from 0 to",
		"ONELB_CHUNK_SIZE=0":                                   "from 1 to 256",
		"ONELB_CHUNK_SIZE=8x":                                  "from 1 to 256",
		"ONELB_RESERVE_AHEAD=257":                              "from 0 to 256",
		"ONELB_QUARANTINE=30":                                  "with a unit",
		"ONELB_QUARANTINE=-1s":                                 "with a unit",
		"ONELB_RANGES=10.0.0.1":                                "FIRST-LAST",
		"ONELB_RANGES=10.0.0.9-10.0.0.1":                       "FIRST-LAST",
		"ONELB_RANGES=10.0.0.1-2001:db8::1":                    "FIRST-LAST",
		"ONELB_RANGES=10.0.0.1-10.0.0.2,":                      "FIRST-LAST",
		"ONELB_EXPOSURE=BGP":                                   "must be L2 or ROUTER",
		"ONELB_EXPOSURE=ROUTER":                                "needs ONELB_ROUTER",
		"ONELB_FORWARD=VIP":                                    "needs ONELB_ROUTER",
		"ONELB_ROUTER=a_b":                                     "must consist",
		"ONELB_EXPOSURE=L2 ONELB_ROUTER=a":                     "go with ONELB_EXPOSURE ROUTER",
		"ONELB_ROUTER=a ONELB_FORWARD=VIP":                     "ONELB_INNER_POOL",
		"ONELB_ROUTER=a ONELB_INNER_POOL=b":                    "ONELB_INNER_POOL",
		"ONELB_ROUTER=a ONELB_FORWARD=DNAT":                    "NODEPORT, VIP, POD or ROUTE",
		"ONELB_ROUTER=a ONELB_FORWARD=ROUTE ONELB_SNAT=ALWAYS": "with ONELB_FORWARD ROUTE it does not",
		"ONELB_X=1 ONELB_PRIORITY=x ONELB_CHUNK_SIZE=no":       "unknown setting ONELB_X",
	} {
		_, _, err := parse(network(5, append([]string{"ONELB_POOL=p"}, strings.Fields(text)...)...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && strings.Contains(text, "ONELB_X") && (!strings.Contains(err.Error(), "PRIORITY") || !strings.Contains(err.Error(), "CHUNK_SIZE")) {
			t.Errorf("%v: want all that is wrong", err)
		}
	}
}

func TestOffered(t *testing.T) {
	for text, want := range map[string]bool{
		"X=y": false, "ONELB_POOL=": false, "ONELB_POOL=p": true, "ONELB_POOL=p ONELB_CLUSTERS=lab": true, "ONELB_POOL=p ONELB_CLUSTERS=a,lab": true,
		"ONELB_POOL=p ONELB_CLUSTERS=laboratory": false, "ONELB_POOL=p ONELB_CLUSTERS=": false,
	} {
		if got := offered(network(1, strings.Fields(text)...), "lab"); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestSettingsAreSorted(t *testing.T) {
	if !slices.IsSortedFunc(Settings(), func(a, b Setting) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("public", "10.0.0.1-10.0.0.9", "VIP")
	f.Fuzz(func(t *testing.T, name, ranges, forward string) {
		_, spec, err := parse(network(1, "ONELB_POOL="+name, "ONELB_RANGES="+ranges, "ONELB_ROUTER=edge", "ONELB_FORWARD="+forward))
		if err == nil && (spec.Router == nil || spec.Exposure != v1alpha1.ExposureRouter) {
			t.Errorf("%+v", spec)
		}
	})
}
