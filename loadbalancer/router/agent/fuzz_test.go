package agent

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// FuzzNext: whatever a client asks for, the answer is a refusal or a valid document
// that takes nothing from another cluster and can be planned.
func FuzzNext(f *testing.F) {
	mine, theirs := doc("lab", "203.0.113.100", 3).Normalize(), doc("other", "203.0.113.101", 1).Normalize()
	mine.Generation, mine.Token = 5, 2
	theirs.Generation = 1
	next := mine
	next.Frontends = next.Frontends[:2]
	delta := &wire.ApplyRequest{
		Cluster: "lab", Identity: "uid-lab", Token: 2, BaseGeneration: 5, Generation: 6, Hash: next.Hash(),
		RemovedFrontends: []*wire.Key{router.ToWire(mine).GetFrontends()[2].GetKey()},
	}
	for _, r := range []*wire.ApplyRequest{whole(next, 5, 6, 2), delta, whole(doc("other", "203.0.113.100", 1), 1, 2, 1), whole(doc("new", "2001:db8:113::1", 1), 0, 1, 1)} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r wire.ApplyRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		s := state{"lab": newOwned(accepted(t, mine)), "other": newOwned(accepted(t, theirs))}
		next, refusal := s.next(&r, fakeAddresses{}.Where)
		if refusal != nil || !next.changed {
			return
		}
		d := next.doc
		if err := d.Validate(); err != nil {
			t.Errorf("accepted: %v", err)
		}
		if d.Cluster != r.GetCluster() || d.Hash() != r.GetHash() {
			t.Errorf("accepted another document than asked for")
		}
		owner := map[netip.Addr]string{}
		s[d.Cluster] = newOwned(d)
		for _, other := range s.documents() {
			for _, f := range other.Frontends {
				if o, is := owner[f.Address]; is && o != other.Cluster {
					t.Errorf("%s belongs to %s and %s", f.Address, o, other.Cluster)
				}
				owner[f.Address] = other.Cluster
			}
		}
		_ = nft.New(nft.Input{Documents: s.documents()}).String()
	})
}

// FuzzDecodeSnapshot: a damaged file is an error, never a document of another content.
func FuzzDecodeSnapshot(f *testing.F) {
	f.Add([]byte(snapshotMagic))
	f.Add([]byte("hello"))
	f.Add(append([]byte(snapshotMagic), make([]byte, 48)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, _, _, err := decodeSnapshot(b)
		if err == nil && d.Validate() != nil {
			t.Error("an invalid document was read")
		}
	})
}
