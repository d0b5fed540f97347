package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// A journal is a magic line, the id of the snapshot that it continues, and
// records: length and CRC-32C of what follows, then a request for a difference.
const (
	journalMagic      = "onelb-journal-1\n"
	journalHeaderSize = int64(len(journalMagic) + len(snapshotID{}))
	recordHeaderSize  = 8
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errJournal = errors.New("not a journal of this snapshot")
	errDamaged = errors.New("a record is damaged and others follow it")
)

func journalHeader(id snapshotID) []byte { return append([]byte(journalMagic), id[:]...) }

func encodeRecord(r *wire.ApplyRequest) ([]byte, error) {
	record, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, recordHeaderSize), r)
	if err != nil {
		return nil, err
	}
	body := record[recordHeaderSize:]
	binary.BigEndian.PutUint32(record, uint32(len(body))) //nolint:gosec // at most router.MaxMessage
	binary.BigEndian.PutUint32(record[4:], crc32.Checksum(body, castagnoli))
	return record, nil
}

// followJournal returns the document that the journal leads to and where its last
// whole record ends; 0 if there is no journal of this snapshot. A record that was cut
// off at the end had not been acknowledged and is no error. After an error the
// document is the last one that is certain.
func followJournal(path string, id snapshotID, base router.Accepted) (d router.Accepted, end int64, err error) {
	b, err := os.ReadFile(path) //nolint:gosec // in the state directory
	if errors.Is(err, fs.ErrNotExist) {
		return base, 0, nil
	}
	if err != nil {
		return base, 0, err
	}
	requests, end, err := decodeJournal(b, id)
	if errors.Is(err, errJournal) {
		return base, 0, nil // of the snapshot before: the next one replaces it
	}
	d, followed := follow(base, requests)
	return d, end, errors.Join(followed, err)
}

// decodeJournal reads records up to the first that is not whole.
func decodeJournal(b []byte, id snapshotID) (requests []*wire.ApplyRequest, end int64, err error) {
	header := journalHeader(id)
	if !bytes.HasPrefix(b, header) {
		return nil, 0, errJournal
	}
	at := len(header)
	for at < len(b) {
		r, size, err := decodeRecord(b[at:])
		if err != nil {
			return requests, int64(at), err
		}
		if r == nil {
			break
		}
		requests = append(requests, r)
		at += size
	}
	return requests, int64(at), nil
}

// decodeRecord reads the first record. None, without an error, is one that a crash
// cut off: it reaches to the end of the file, or nothing but zeros follows.
func decodeRecord(b []byte) (r *wire.ApplyRequest, size int, err error) {
	if len(b) < recordHeaderSize {
		return nil, 0, nil
	}
	length := uint64(binary.BigEndian.Uint32(b))
	size = int(recordHeaderSize + length) //nolint:gosec // below 2^33
	torn := size >= len(b) || len(bytes.Trim(b[recordHeaderSize:], "\x00")) == 0
	if size > len(b) {
		return nil, 0, nil
	}
	body := b[recordHeaderSize:size]
	r = &wire.ApplyRequest{}
	switch {
	case length == 0 || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[4:]):
		if torn {
			return nil, 0, nil
		}
		return nil, 0, errDamaged
	default:
		if err := proto.Unmarshal(body, r); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return r, size, nil
}

// follow applies many differences at once. That the result is the document which
// the last one meant, its hash tells. What a newer build wrote with something that this
// one does not know ends it: the document before it is returned with the error.
func follow(base router.Accepted, requests []*wire.ApplyRequest) (router.Accepted, error) {
	if len(requests) == 0 {
		return base, nil
	}
	var newer error
	if n := slices.IndexFunc(requests, func(r *wire.ApplyRequest) bool { return unsupported(r, "") != nil }); n >= 0 {
		newer = fmt.Errorf("a newer onelb-router wrote generation %d: %s", requests[n].GetGeneration(), unsupported(requests[n], "of this version").message)
		if requests = requests[:n]; n == 0 {
			return base, newer
		}
	}
	deltas := make([]router.Delta, 0, len(requests))
	generation := base.Generation
	for _, r := range requests {
		if r.GetBaseGeneration() != generation {
			return base, fmt.Errorf("a difference to generation %d follows generation %d", r.GetBaseGeneration(), generation)
		}
		generation = r.GetGeneration()
		delta, err := router.DeltaFromWire(r)
		if err != nil {
			return base, fmt.Errorf("generation %d: %w", generation, err)
		}
		deltas = append(deltas, delta)
	}
	last := requests[len(requests)-1]
	d, err := base.Edit(router.Sum(base.Document, deltas))
	if err != nil {
		return base, err
	}
	d = d.Stamped(base.Cluster, last.GetIdentity(), last.GetToken(), generation)
	if hash := d.Hash(); hash != last.GetHash() {
		return base, fmt.Errorf("generation %d has hash %s, not %s", generation, hash, last.GetHash())
	}
	return d, newer
}
