package agent

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

const snapshotMagic = "onelb-document-2\n"

// snapshotID is drawn for each snapshot, so that two of the same content differ.
type snapshotID [16]byte

// encodeSnapshot makes the content of a file: a magic line, SHA-256 of the rest, the
// id, the document in its wire form.
func encodeSnapshot(d router.Document) (id snapshotID, content []byte, err error) {
	_, _ = rand.Read(id[:]) // never fails
	content, err = sealSnapshot(id, router.ToWire(d))
	return id, content, err
}

func sealSnapshot(id snapshotID, w *wire.Document) ([]byte, error) {
	content := make([]byte, 0, len(snapshotMagic)+sha256.Size+len(id)+proto.Size(w))
	content = append(content, snapshotMagic...)
	content = append(content, make([]byte, sha256.Size)...)
	content = append(content, id[:]...)
	content, err := (proto.MarshalOptions{}).MarshalAppend(content, w)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content[len(snapshotMagic)+sha256.Size:])
	copy(content[len(snapshotMagic):], sum[:])
	return content, nil
}

func readSnapshot(path, cluster string) (d router.Accepted, id snapshotID, size int64, problem string, err error) {
	b, err := os.ReadFile(path) //nolint:gosec // in the state directory
	if err != nil {
		return d, id, 0, "", err
	}
	if d, id, problem, err = decodeSnapshot(b); err != nil {
		return d, id, 0, "", err
	}
	if d.Cluster != cluster {
		return d, id, 0, "", fmt.Errorf("it is of cluster %q", d.Cluster)
	}
	return d, id, int64(len(b)), problem, nil
}

// decodeSnapshot reads a file. A problem is about what the document is without.
func decodeSnapshot(b []byte) (d router.Accepted, id snapshotID, problem string, err error) {
	rest, is := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !is || len(rest) < sha256.Size+len(id) {
		return d, id, "", errors.New("not a document, or cut off")
	}
	body := rest[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return d, id, "", errors.New("checksum does not match")
	}
	copy(id[:], body)
	var w wire.Document
	if err := proto.Unmarshal(body[len(id):], &w); err != nil {
		return d, id, "", err
	}
	problem = withoutUnknown(&w)
	read, err := router.FromWire(&w)
	if err == nil {
		d, err = router.Accept(read)
	}
	return d, id, problem, err
}
