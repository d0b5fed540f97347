package one

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/component-base/metrics/testutil"

	"github.com/onelb/onelb/ipam"
)

// canned answers every call with the same bytes.
type canned []byte

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(bytes.NewReader(c))}, nil
}

func TestVM(t *testing.T) {
	f := newFrontEnd(t, func(r request) string {
		switch r.params[1] {
		case "0":
			return okText(testdata(t, "vm-nics"))
		case "5":
			return okText(testdata(t, "vm-done"))
		case "6":
			return okText(testdata(t, "vm-done")) // of VM 5
		case "7":
			return failure(0x0200, "[one.vm.info] User [3] : Not authorized to perform USE VM [7].")
		}
		return failure(0x0400, "[one.vm.info] Error getting virtual machine [4711].")
	})
	c := f.client(Options{})
	for id, want := range map[int]error{0: nil, 5: nil, 6: ipam.ErrUnavailable, 7: ipam.ErrDenied, 4711: ipam.ErrNotFound} {
		vm, err := c.VM(context.Background(), id)
		if !errors.Is(err, want) || err == nil && vm.ID != id {
			t.Errorf("VM %d: %+v, %v", id, vm, err)
		}
	}
}

func TestVMsAreReadOnceForMany(t *testing.T) {
	release := make(chan struct{})
	f := newFrontEnd(t, func(request) string {
		<-release
		return okText(`<VM_POOL><VM><ID>1</ID><NAME>node-1</NAME><STATE>3</STATE></VM></VM_POOL>`)
	})
	c := f.client(Options{CacheTTL: time.Hour})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if vms, err := c.VMs(context.Background()); err != nil || len(vms) != 1 {
				t.Errorf("%+v, %v", vms, err)
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := c.VMs(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller must not wait longer than its context: %v", err)
	}
	close(release)
	wg.Wait()
	if n := len(f.calls("one.vmpool.infoextended")); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		var fail error
		c := newCached(time.Second, 10*time.Second, func(context.Context) (int, error) {
			reads++
			time.Sleep(300 * time.Millisecond)
			return reads, fail
		})
		get := func(want int, wantErr error) {
			t.Helper()
			if v, err := c.get(t.Context()); v != want || !errors.Is(err, wantErr) {
				t.Fatalf("got %d, %v", v, err)
			}
		}
		get(1, nil)
		get(1, nil)
		time.Sleep(600 * time.Millisecond) // 900 ms after the read began
		get(1, nil)
		time.Sleep(200 * time.Millisecond)
		get(2, nil)
		time.Sleep(2 * time.Second)
		fail = errors.New("down")
		get(0, fail)
		fail = nil
		get(4, nil) // an error is not kept

		// A caller who gives up does not end the read of the others.
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(100 * time.Millisecond); cancel() }()
		if _, err := c.get(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		get(5, nil)
	})
}

func TestZoneName(t *testing.T) {
	zones := `<ZONE><ID>0</ID><NAME>main</NAME></ZONE>`
	f := newFrontEnd(t, func(r request) string {
		if r.method == "one.system.config" {
			return okText("<TEMPLATE><FEDERATION><MODE>SLAVE</MODE><ZONE_ID>100</ZONE_ID></FEDERATION></TEMPLATE>")
		}
		return okText("<ZONE_POOL>" + zones + "</ZONE_POOL>")
	})
	if name, err := f.client(Options{}).ZoneName(context.Background()); err != nil || name != "main" || len(f.calls("one.system.config")) > 0 {
		t.Errorf("%q, %v", name, err)
	}
	zones += `<ZONE><ID>100</ID><NAME>south</NAME></ZONE>`
	if name, err := f.client(Options{}).ZoneName(context.Background()); err != nil || name != "south" {
		t.Errorf("%q, %v", name, err)
	}
}

func TestCluster(t *testing.T) {
	f := newFrontEnd(t, func(request) string {
		return okText("<CLUSTER_POOL><CLUSTER><ID>100</ID><NAME>rack-1</NAME><TEMPLATE><ROOM>B</ROOM></TEMPLATE></CLUSTER></CLUSTER_POOL>")
	})
	c := f.client(Options{})
	if p, err := c.Cluster(context.Background(), 100); err != nil || p.Name != "rack-1" || p.Attributes["ROOM"] != "B" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Cluster(context.Background(), 0); !errors.Is(err, ipam.ErrNotFound) {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	f := newFrontEnd(t, func(r request) string {
		if r.method == "one.vn.free_ar" {
			return failure(0x2000, "[one.vn.free_ar] Address Range has leases in use")
		}
		return okID(1)
	})
	c := f.client(Options{})
	requestsTotal.Reset()
	_ = c.FreeRange(context.Background(), 1, 1)
	_ = c.Annotate(context.Background(), 1, map[string]string{"A": "b"})
	f.server.Close()
	_ = c.Annotate(context.Background(), 1, map[string]string{"A": "b"})
	want := `
# HELP onelb_opennebula_requests_total [ALPHA] Calls to OpenNebula by method and outcome: OK, OpenNebula's error name, or TIMEOUT, CANCELED, UNREACHABLE, HTTP, FAULT, MALFORMED.
# TYPE onelb_opennebula_requests_total counter
onelb_opennebula_requests_total{code="INTERNAL",method="one.vn.free_ar"} 1
onelb_opennebula_requests_total{code="OK",method="one.vn.update"} 1
onelb_opennebula_requests_total{code="UNREACHABLE",method="one.vn.update"} 1
`
	if err := testutil.CollectAndCompare(requestsTotal, strings.NewReader(want), "onelb_opennebula_requests_total"); err != nil {
		t.Error(err)
	}
}
