package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

var record = flag.Bool("record", false, "write the messages that later releases are tested with")

// recorded is a message as the first release sends it. The files stay as they are:
// what is added later is recorded beside them.
func recorded(t *testing.T, name string, now, into proto.Message) {
	t.Helper()
	file := filepath.Join("testdata", "skew", name+".binpb")
	if *record && now != nil {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(now)
		if err == nil {
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = proto.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// everything is a document with all that the first release has.
func everything() router.Document {
	d := doc("lab", "203.0.113.100", 3)
	d.Groups[0].Check = &router.Check{Port: 10256, Path: "/healthz"}
	d.Groups[0].Members[0].CheckAddress, d.Groups[0].Members[0].Weight = netip.MustParseAddr("10.20.0.12"), 3
	d.Groups = append(d.Groups, router.Group{Name: "nodes6", Members: []router.Member{{Address: netip.MustParseAddr("fd00:20::11"), Node: "node-1"}}})
	d.Frontends[0].Affinity, d.Frontends[0].MaxConnections = time.Hour, 100
	d.Frontends[1].SourceRanges, d.Frontends[1].SNAT = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, router.SNATAlways
	d.Frontends = append(d.Frontends, router.Frontend{
		Address: netip.MustParseAddr("2001:db8:113::100"), Protocol: router.SCTP, Port: 80, Service: "default/six", Group: "nodes6", BackendPort: 30000, SNAT: router.SNATNever,
	})
	d.Frontends = append(d.Frontends, router.Frontend{
		Address: netip.MustParseAddr("203.0.113.120"), Protocol: router.TCP, Port: 80, Service: "default/routed", Group: "nodes", BackendPort: 80, SNAT: router.SNATNever, Routed: true,
	})
	d.Routes = []router.Route{{Destination: netip.MustParsePrefix("10.244.1.0/24"), Gateway: netip.MustParseAddr("10.20.0.11")}}
	return d.Normalize()
}

// TestClientOfFirstRelease: this agent takes what a cloud-controller-manager of the
// first release sends, and answers what that one understands.
func TestClientOfFirstRelease(t *testing.T) {
	from := everything()
	to := everything()
	to.Frontends = slices.Delete(to.Frontends, 1, 2)
	to.Frontends[0].BackendPort++
	delta := router.Diff(from, to)
	w := router.ToWire(router.Document{Frontends: delta.Frontends})
	gone := router.ToWire(from).GetFrontends()[1].GetKey()
	var first, second wire.ApplyRequest
	recorded(t, "whole", whole(from, 0, 5, 3), &first)
	recorded(t, "difference", &wire.ApplyRequest{
		Cluster: "lab", Identity: from.Identity, Token: 3, BaseGeneration: 5, Generation: 6, Hash: to.Hash(),
		Frontends: w.GetFrontends(), RemovedFrontends: []*wire.Key{gone},
	}, &second)

	b := newBench(t)
	b.start()
	rpc := b.raw("lab")
	var answer *wire.ApplyResponse
	for _, r := range []*wire.ApplyRequest{&first, &second} {
		var err error
		if answer, err = rpc.Apply(t.Context(), r); err != nil || answer.GetRejection() != nil {
			t.Fatalf("generation %d: %v, %v", r.GetGeneration(), err, answer.GetRejection())
		}
	}
	var told wire.Status
	recorded(t, "status", answer.GetStatus(), &told)
	got := answer.GetStatus()
	if got.GetHash() != told.GetHash() || got.GetGeneration() != told.GetGeneration() || got.GetToken() != told.GetToken() ||
		got.GetIdentity() != told.GetIdentity() || got.GetMembers() != told.GetMembers() || !got.GetMaster() {
		t.Errorf("status %v, the first release's is %v", got, &told)
	}
	for _, f := range told.GetFeatures() {
		if !slices.Contains(got.GetFeatures(), f) {
			t.Errorf("feature %s is gone", f)
		}
	}
}

// wordyAgent is an agent of another release, by its words.
type wordyAgent struct {
	wire.UnimplementedRouterServer
	mu     sync.Mutex
	status *wire.Status
	got    *wire.ApplyRequest
}

func (w *wordyAgent) Apply(_ context.Context, r *wire.ApplyRequest) (*wire.ApplyResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = r
	w.status = proto.CloneOf(w.status)
	w.status.Revision++
	w.status.Generation, w.status.Hash, w.status.Token = r.GetGeneration(), r.GetHash(), r.GetToken()
	return &wire.ApplyResponse{Status: w.status}, nil
}

func (w *wordyAgent) Watch(_ *wire.WatchRequest, stream grpc.ServerStreamingServer[wire.Status]) error {
	for {
		w.mu.Lock()
		status := w.status
		w.mu.Unlock()
		if err := stream.Send(status); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// says starts an agent that says this.
func (b *bench) says(status *wire.Status) *wordyAgent {
	b.t.Helper()
	pair, err := tls.LoadX509KeyPair(b.path("router.crt"), b.path("router.key"))
	b.must(err)
	l, err := (&net.ListenConfig{}).Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	b.must(err)
	b.addr = l.Addr().String()
	agent := &wordyAgent{status: status}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})))
	wire.RegisterRouterServer(server, agent)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	b.t.Cleanup(func() { server.Stop(); <-done })
	return agent
}

// TestAgentsOfOtherReleases: what an agent does not say, it cannot do; what it says
// beyond what is known here is no harm.
func TestAgentsOfOtherReleases(t *testing.T) {
	var first wire.Status
	recorded(t, "status", nil, &first)
	older := &wire.Status{Master: true, Version: "0.0.9"}
	newer := proto.CloneOf(&first)
	newer.Features = append(newer.Features, "time-travel")
	newer.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "what is yet to come"))
	for name, test := range map[string]struct {
		status *wire.Status
		lacks  string
	}{
		"first": {&first, ""}, "newer": {newer, ""},
		"older": {older, "onelb-router 0.0.9 there does not have the feature connection-limit"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			agent := b.says(test.status)
			c := b.client("lab", 9)
			b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 2))))
			agent.mu.Lock()
			if got := len(agent.got.GetFrontends()); got != 2 {
				t.Errorf("it got %d frontends", got)
			}
			agent.mu.Unlock()
			err := c.State().Lacks(router.FeatureConnectionLimit)
			if test.lacks == "" && err != nil || test.lacks != "" && (!errors.Is(err, router.ErrTooOld) || !strings.Contains(err.Error(), test.lacks)) {
				t.Errorf("it lacks %v, want %q", err, test.lacks)
			}
			if err := c.State().Lacks(); err != nil {
				t.Errorf("nothing is asked for, and it lacks %v", err)
			}
		})
	}
}

// TestUnknownFields: a request with anything in it that this build does not know is
// refused as a whole, and says what is at fault.
func TestUnknownFields(t *testing.T) {
	b := newBench(t)
	b.start()
	rpc := b.raw("lab")
	field := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for name, test := range map[string]struct {
		of   func(*wire.ApplyRequest) proto.Message
		want string
	}{
		"request":  {func(r *wire.ApplyRequest) proto.Message { return r }, "field 99 of the request"},
		"group":    {func(r *wire.ApplyRequest) proto.Message { return r.GetGroups()[0] }, `field 99 of group "nodes"`},
		"member":   {func(r *wire.ApplyRequest) proto.Message { return r.GetGroups()[0].GetMembers()[0] }, `field 99 of group "nodes"`},
		"check":    {func(r *wire.ApplyRequest) proto.Message { return r.GetGroups()[0].GetCheck() }, `field 99 of group "nodes"`},
		"frontend": {func(r *wire.ApplyRequest) proto.Message { return r.GetFrontends()[0] }, "field 99 of a frontend of Service default/s0"},
		"key":      {func(r *wire.ApplyRequest) proto.Message { return r.GetFrontends()[0].GetKey() }, "field 99 of a frontend of Service default/s0"},
		"range":    {func(r *wire.ApplyRequest) proto.Message { return r.GetFrontends()[1].GetSourceRanges()[0] }, "field 99 of a frontend of Service default/s1"},
		"route":    {func(r *wire.ApplyRequest) proto.Message { return r.GetRoutes()[0].GetDestination() }, "field 99 of a route"},
		"removed frontend": {func(r *wire.ApplyRequest) proto.Message {
			r.Whole, r.RemovedFrontends = false, []*wire.Key{{}}
			return r.GetRemovedFrontends()[0]
		}, "field 99 of the key"},
		"removed route": {func(r *wire.ApplyRequest) proto.Message {
			r.Whole, r.RemovedRoutes = false, []*wire.Prefix{{}}
			return r.GetRemovedRoutes()[0]
		}, "field 99 of a route to remove"},
	} {
		r := whole(everything(), 0, 1, 1)
		test.of(r).ProtoReflect().SetUnknown(field)
		answer, err := rpc.Apply(t.Context(), r)
		b.must(err)
		got := answer.GetRejection()
		if router.Reason(got.GetReason()) != router.ReasonUnsupported || !strings.Contains(got.GetMessage(), "onelb-router test does not know "+test.want) {
			t.Errorf("%s: %v, want %q", name, got, test.want)
		}
		if strings.Contains(test.want, "Service") != (got.GetService() != "") {
			t.Errorf("%s: Service %q", name, got.GetService())
		}
	}
	if b.size().Frontends != 0 {
		t.Error("something of it runs")
	}
}

// TestJournalOfNewerRelease: records up to the first with something that this release does
// not know are followed, and what ends it is told.
func TestJournalOfNewerRelease(t *testing.T) {
	e := newEdits(t)
	e.edit(50, true)
	e.edit(51, false)
	last := e.latest.Generation
	for n := range 2 {
		d, r := e.request(52+n, false)
		r.Frontends[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))
		p, err := e.store.prepare(d, r)
		if err == nil {
			err = p.commit()
		}
		if err != nil {
			t.Fatal(err)
		}
		e.latest = d
	}
	d, problems := e.reload(e.copied())
	if d.Generation != last || !strings.Contains(strings.Join(problems, " "), "does not know field 99") {
		t.Errorf("generation %d, want %d, problems %v", d.Generation, last, problems)
	}
}

// TestTakenOnDisk: of two documents with one address, the first has it, and that is told.
func TestTakenOnDisk(t *testing.T) {
	b := newBench(t)
	b.must(os.MkdirAll(b.path("state"), 0o700))
	s, err := openStore(b.path("state"))
	b.must(err)
	for cluster, n := range map[string]int{"lab": 2, "other": 3} {
		d := doc(cluster, "203.0.113.100", n)
		d.Frontends = append(d.Frontends, doc(cluster, "203.0.113."+strconv.Itoa(100+n), 1).Frontends...)
		d = d.Normalize()
		d.Generation = 1
		b.must(s.save(d))
	}
	s.close()
	b.start()
	b.eventually("restored", func() bool { return b.size().Frontends == 4 })
	c := b.client("other", 1)
	b.must(b.wait(c, c.Set(doc("other", "203.0.113.103", 1))))
	if got := strings.Join(c.State().Instances[0].Problems, " "); !strings.Contains(got, "document of cluster other: 3 frontends, of Service default/s0 first, are closed") {
		t.Errorf("problems %q", got)
	}
	if got := b.size().Frontends; got != 4 {
		t.Errorf("%d frontends", got)
	}
}

// TestSnapshotOfNewerRelease: after a step back to this release, what it does not know
// is closed and told until the cluster sends what it does know; the rest works on.
func TestSnapshotOfNewerRelease(t *testing.T) {
	field := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for name, test := range map[string]struct {
		change    func(*wire.Document)
		frontends int
		want      string
	}{
		"frontend": {func(w *wire.Document) { w.Frontends[1].ProtoReflect().SetUnknown(field) }, 4, "1 frontends, of Service default/s1 first,"},
		"group":    {func(w *wire.Document) { w.Groups[1].ProtoReflect().SetUnknown(field) }, 4, "1 frontends, of Service default/six first,"},
		"route":    {func(w *wire.Document) { w.Routes[0].ProtoReflect().SetUnknown(field) }, 5, "1 routes need what this one does not know"},
		"document": {func(w *wire.Document) { w.ProtoReflect().SetUnknown(field) }, 5, "its field 99 is left out"},
	} {
		t.Run(name, func(t *testing.T) {
			d := everything()
			d.Generation = 7
			w := router.ToWire(d)
			test.change(w)
			b := newBench(t)
			b.must(os.MkdirAll(b.path("state"), 0o700))
			content, err := sealSnapshot(snapshotID{1}, w)
			b.must(err)
			b.must(os.WriteFile(filepath.Join(b.path("state"), "lab"+snapshotSuffix), content, 0o600))
			b.start()
			b.eventually("restored", func() bool { return b.size().Frontends == test.frontends })
			c := b.client("lab", 1)
			b.must(b.wait(c, c.Set(everything())))
			if got := strings.Join(c.State().Instances[0].Problems, " "); !strings.Contains(got, test.want) {
				t.Errorf("problems %q, want %q", got, test.want)
			}
			if got := b.size().Frontends; got != 5 {
				t.Errorf("%d frontends after the cluster's word", got)
			}
		})
	}
}
