package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// edits is a store with a history of generations 1 to n, each with other content.
type edits struct {
	t      *testing.T
	dir    string
	store  *store
	latest router.Document
	hashes map[uint64]string // by generation
}

func newEdits(t *testing.T) *edits {
	t.Helper()
	e := &edits{t: t, dir: t.TempDir(), hashes: map[uint64]string{}}
	var err error
	if e.store, err = openStore(e.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.store.close() })
	return e
}

// request leads from the latest document to one with other frontends.
func (e *edits) request(n int, whole bool) (router.Document, *wire.ApplyRequest) {
	d := doc("lab", "203.0.113.100", n)
	for i := range n % 3 {
		d.Routes = append(d.Routes, router.Route{
			Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24), Gateway: netip.AddrFrom4([4]byte{10, 20, 0, byte(11 + n%2)}),
		})
	}
	d = d.Normalize()
	d.Generation, d.Token = e.latest.Generation+1, 1
	r := &wire.ApplyRequest{
		Cluster: d.Cluster, Identity: d.Identity, Token: d.Token, Hash: d.Hash(),
		BaseGeneration: e.latest.Generation, Generation: d.Generation, Whole: whole,
	}
	delta := router.Diff(e.latest, d)
	w := router.ToWire(router.Document{Groups: delta.Groups, Frontends: delta.Frontends, Routes: delta.Routes})
	r.Groups, r.Frontends, r.RemovedGroups, r.Routes = w.GetGroups(), w.GetFrontends(), delta.RemovedGroups, w.GetRoutes()
	for _, prefix := range delta.RemovedRoutes {
		r.RemovedRoutes = append(r.RemovedRoutes, &wire.Prefix{Address: prefix.Addr().AsSlice(), Bits: uint32(prefix.Bits())})
	}
	for _, k := range delta.RemovedFrontends {
		r.RemovedFrontends = append(r.RemovedFrontends, router.ToWire(router.Document{
			Frontends: []router.Frontend{{Address: k.Address, Protocol: k.Protocol, Port: k.Port}},
		}).GetFrontends()[0].GetKey())
	}
	return d, r
}

func (e *edits) edit(n int, whole bool) {
	e.t.Helper()
	d, r := e.request(n, whole)
	p, err := e.store.prepare(d, r)
	if err == nil {
		err = p.commit()
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.latest, e.hashes[d.Generation] = d, r.GetHash()
}

// reload reads a directory as a start after a crash does.
func (e *edits) reload(dir string) (*router.Document, []string) {
	e.t.Helper()
	s, err := openStore(dir)
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.close()
	documents, problems, err := s.load()
	if err != nil {
		e.t.Fatal(err)
	}
	if len(documents) == 0 {
		return nil, problems
	}
	d := documents[0].Document
	if got, want := d.Hash(), e.hashes[d.Generation]; got != want {
		e.t.Fatalf("generation %d has other content than it had", d.Generation)
	}
	return &d, problems
}

// copied is the directory as it is at this moment.
func (e *edits) copied() string {
	e.t.Helper()
	dir := e.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(e.dir)); err != nil {
		e.t.Fatal(err)
	}
	return dir
}

func (e *edits) size(suffix string) int64 {
	info, err := os.Stat(filepath.Join(e.dir, "lab"+suffix))
	if err != nil {
		return -1
	}
	return info.Size()
}

// TestJournal: differences go to the journal, and a start finds the last one.
func TestJournal(t *testing.T) {
	e := newEdits(t)
	e.edit(80, true)
	snapshot := e.size(snapshotSuffix)
	for n := range 20 {
		e.edit(60+n, false)
		if d, problems := e.reload(e.copied()); d.Generation != e.latest.Generation || len(problems) > 0 {
			t.Fatalf("generation %d after %d, problems %v", d.Generation, e.latest.Generation, problems)
		}
	}
	if e.size(snapshotSuffix) != snapshot || e.size(journalSuffix) < 1000 {
		t.Errorf("snapshot of %d bytes (was %d), journal of %d", e.size(snapshotSuffix), snapshot, e.size(journalSuffix))
	}
	// What is open goes on where it was, also after a start.
	s, err := openStore(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, problems, err := s.load(); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	e.store.close()
	e.store = s
	e.edit(5, false)
	if d, _ := e.reload(e.dir); d.Generation != e.latest.Generation {
		t.Errorf("generation %d, want %d", d.Generation, e.latest.Generation)
	}
}

// TestJournalCrash: whatever part of the last write is on disk, a start finds the
// document before it, or after it, and says nothing: it was not acknowledged.
func TestJournalCrash(t *testing.T) {
	e := newEdits(t)
	e.edit(50, true)
	e.edit(51, false)
	before := e.size(journalSuffix)
	e.edit(48, false)
	after := e.size(journalSuffix)
	for size := before; size <= after; size++ {
		for name, tail := range map[string]int64{"cut": 0, "zeros": after - size} {
			dir := e.copied()
			path := filepath.Join(dir, "lab"+journalSuffix)
			if err := errors.Join(os.Truncate(path, size), os.Truncate(path, size+tail)); err != nil {
				t.Fatal(err)
			}
			want := e.latest.Generation
			if size < after {
				want--
			}
			d, problems := e.reload(dir)
			if d.Generation != want && d.Generation != e.latest.Generation || len(problems) > 0 { // its last bytes may be zeros
				t.Fatalf("%s at %d of %d: generation %d, problems %v", name, size, after, d.Generation, problems)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != before && info.Size() != after {
				t.Fatalf("%s at %d: %v, %d bytes are left", name, size, err, info.Size())
			}
		}
	}
}

// TestJournalDamaged: a byte that has changed is found, never followed.
func TestJournalDamaged(t *testing.T) {
	e := newEdits(t)
	e.edit(50, true)
	for n := range 3 {
		e.edit(51+n, false)
	}
	data, err := os.ReadFile(filepath.Join(e.dir, "lab"+journalSuffix))
	if err != nil {
		t.Fatal(err)
	}
	reported := 0
	for at := range data {
		dir := e.copied()
		bad := append([]byte{}, data...)
		bad[at] ^= 0x20
		if err := os.WriteFile(filepath.Join(dir, "lab"+journalSuffix), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		d, problems := e.reload(dir) // checks that it is one of the documents
		if d.Generation == e.latest.Generation {
			t.Fatalf("byte %d of %d does not matter", at, len(data))
		}
		reported += len(problems)
	}
	if reported < len(data)/2 { // in the last record it looks like a crash
		t.Errorf("%d of %d reported", reported, len(data))
	}
}

// TestPreparedOnly: what was not committed is not there after a crash.
func TestPreparedOnly(t *testing.T) {
	e := newEdits(t)
	for _, whole := range []bool{true, false} {
		e.edit(50, true)
		d, r := e.request(51, whole)
		p, err := e.store.prepare(d, r)
		if err != nil {
			t.Fatal(err)
		}
		dir := e.copied()
		if got, problems := e.reload(dir); got.Generation != e.latest.Generation || len(problems) > 0 {
			t.Errorf("whole %v: generation %d, want %d: %v", whole, got.Generation, e.latest.Generation, problems)
		}
		p.abort()
		for _, d := range []string{dir, e.dir} {
			if left, err := filepath.Glob(filepath.Join(d, newPrefix+"*")); err != nil || len(left) > 0 {
				t.Errorf("whole %v: left %v, %v", whole, left, err)
			}
		}
	}
}

// TestCompact: a long journal gives way to a snapshot, in every crash between the
// two too.
func TestCompact(t *testing.T) {
	e := newEdits(t)
	e.edit(90, true)
	n := 0
	for ; !e.store.wantsSnapshot("lab"); n++ {
		e.edit(40+n%50, false)
	}
	if e.size(journalSuffix) < compactAbove {
		t.Errorf("wants a snapshot at %d bytes", e.size(journalSuffix))
	}
	old, err := os.ReadFile(filepath.Join(e.dir, "lab"+journalSuffix))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.save(e.latest); err != nil {
		t.Fatal(err)
	}
	// The journal of the snapshot before is still there: it does not count.
	if d, problems := e.reload(e.copied()); d.Generation != e.latest.Generation || len(problems) > 0 || e.store.wantsSnapshot("lab") {
		t.Errorf("after the snapshot: generation %d of %d, %v", d.Generation, e.latest.Generation, problems)
	}
	e.edit(7, false)
	if got := e.size(journalSuffix); got >= int64(len(old)) {
		t.Errorf("journal has %d bytes after the snapshot, %d before", got, len(old))
	}
	if d, problems := e.reload(e.dir); d.Generation != e.latest.Generation || len(problems) > 0 {
		t.Errorf("after a further edit: generation %d of %d, %v", d.Generation, e.latest.Generation, problems)
	}
}

// TestWriteFails: after an error nothing is appended until a snapshot was written.
func TestWriteFails(t *testing.T) {
	e := newEdits(t)
	e.edit(50, true)
	e.edit(51, false)
	d, r := e.request(52, false)
	p, err := e.store.prepare(d, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.clusters["lab"].journal.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.commit(); err == nil || !strings.Contains(err.Error(), "lab") {
		t.Fatalf("written to a closed file: %v", err)
	}
	if !e.store.wantsSnapshot("lab") {
		t.Error("no snapshot is wanted")
	}
	e.edit(53, false) // becomes a snapshot
	if e.store.wantsSnapshot("lab") {
		t.Error("a snapshot is still wanted")
	}
	if got, problems := e.reload(e.copied()); got.Generation != e.latest.Generation || len(problems) > 0 {
		t.Errorf("generation %d, want %d: %v", got.Generation, e.latest.Generation, problems)
	}
}

// TestDiskFullOfEdits: small differences too are refused as a whole, and taken
// again when there is room.
func TestDiskFullOfEdits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	b := newBench(t)
	b.must(os.Mkdir(b.path("state"), 0o700))
	b.must(unix.Mount("tmpfs", b.path("state"), "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { b.must(unix.Unmount(b.path("state"), unix.MNT_DETACH)) })
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 100))))
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 99))))
	filler := filepath.Join(b.path("state"), "filler")
	f, err := os.Create(filler)
	b.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	b.must(f.Close())
	last := 99
	for n := 98; ; n-- {
		if n == 0 {
			t.Fatal("98 edits have room on a full disk")
		}
		err := b.wait(c, c.Set(doc("lab", "203.0.113.100", n)))
		var rejected *router.RejectedError
		if errors.As(err, &rejected) && rejected.Reason == router.ReasonStorage && strings.Contains(rejected.Message, "no space left") {
			break
		}
		b.must(err)
		last = n
	}
	if got := b.size(); got.Frontends != last {
		t.Errorf("kernel has %+v, want %d", got, last)
	}
	b.stop()
	b.kernel.size.Frontends = 0
	b.must(os.Remove(filler))
	b.start()
	b.eventually("the last document that had room is restored", func() bool { return b.size().Frontends >= last-1 })
	b.eventually("there is room again", func() bool { return b.wait(c, c.Set(doc("lab", "203.0.113.100", 7))) == nil })
}

// FuzzDecodeJournal: a damaged journal is an error or shorter, and what is read
// can be followed or is refused.
func FuzzDecodeJournal(f *testing.F) {
	base := doc("lab", "203.0.113.100", 3).Normalize()
	base.Generation = 1
	next := base
	next.Frontends, next.Generation = base.Frontends[:2], 2
	record, err := encodeRecord(&wire.ApplyRequest{
		Cluster: "lab", Identity: base.Identity, BaseGeneration: 1, Generation: 2, Hash: next.Hash(),
		RemovedFrontends: []*wire.Key{router.ToWire(base).GetFrontends()[2].GetKey()},
	})
	if err != nil {
		f.Fatal(err)
	}
	whole := append(journalHeader(snapshotID{}), record...)
	f.Add(whole)
	f.Add(append(whole, record[:20]...))
	f.Add(append(whole, make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		requests, end, err := decodeJournal(b, snapshotID{})
		if end < 0 || end > int64(len(b)) || err == nil && end < journalHeaderSize {
			t.Fatalf("end %d of %d, %v", end, len(b), err)
		}
		if d, err := follow(accepted(t, base), requests); err == nil && d.Validate() != nil {
			t.Error("an invalid document was read")
		}
		again, _, err := decodeJournal(b[:end], snapshotID{})
		if end > 0 && (err != nil || len(again) != len(requests)) {
			t.Errorf("what was kept reads otherwise: %d and %d records, %v", len(again), len(requests), err)
		}
		for i := range again {
			if !proto.Equal(again[i], requests[i]) {
				t.Error("another record")
			}
		}
	})
}
