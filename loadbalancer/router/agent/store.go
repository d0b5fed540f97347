package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

const (
	snapshotSuffix = ".document"
	journalSuffix  = ".journal"
	badSuffix      = ".corrupt"
	newPrefix      = ".new-"
	// compactAbove is the size of a journal below which it is never worth while
	// to write a snapshot.
	compactAbove = 256 << 10
)

// store keeps two files for each cluster: a snapshot of its document, and a
// journal of the differences since. So an edit costs one small write and one
// sync, whatever the size of the document.
//
// A change is prepared before the kernel gets it, which finds out that the disk is
// full, and committed after the kernel took it. Whatever is on disk has thus been
// in force, and a crash in between leaves the document before. A snapshot is
// replaced by renaming a synced file; a journal names the snapshot that it belongs
// to, so one that outlives its snapshot is recognised.
type store struct {
	dir      string
	clusters map[string]*kept
}

// kept is what the store knows of one cluster's files.
type kept struct {
	id       snapshotID
	snapshot int64    // size
	journal  *journal // nil until the first difference after a snapshot
	unsure   bool     // a write failed: nothing may be appended any more
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &store{dir: dir, clusters: map[string]*kept{}}, nil
}

func (s *store) path(cluster, suffix string) string { return filepath.Join(s.dir, cluster+suffix) }

// pending is a change that is prepared: either commit or abort ends it.
type pending struct {
	commit func() error
	abort  func()
}

// prepare makes ready what keeps the document. The request led to it; as a
// difference it goes to the journal.
func (s *store) prepare(d router.Document, r *wire.ApplyRequest) (pending, error) {
	k := s.clusters[d.Cluster]
	if k != nil && !k.unsure && !r.GetWhole() && int64(proto.Size(r)) < k.snapshot {
		return s.prepareRecord(d.Cluster, k, r)
	}
	return s.prepareSnapshot(d)
}

func (s *store) prepareSnapshot(d router.Document) (pending, error) {
	id, content, err := encodeSnapshot(d)
	if err != nil {
		return pending{}, fmt.Errorf("keep document of %s: %w", d.Cluster, err)
	}
	name, err := s.writeNew(content)
	if err != nil {
		return pending{}, fmt.Errorf("keep document of %s: %w", d.Cluster, err)
	}
	commit := func() error {
		old := s.clusters[d.Cluster]
		if err := s.rename(name, s.path(d.Cluster, snapshotSuffix)); err != nil {
			if old != nil {
				old.unsure = true // it may have been replaced all the same
			}
			return fmt.Errorf("keep document of %s: %w", d.Cluster, err)
		}
		s.clusters[d.Cluster] = &kept{id: id, snapshot: int64(len(content))}
		if old != nil && old.journal != nil {
			old.journal.close() // it belongs to no snapshot now, and the next one replaces it
		}
		return nil
	}
	return pending{commit: commit, abort: func() { _ = os.Remove(name) }}, nil
}

func (s *store) prepareRecord(cluster string, k *kept, r *wire.ApplyRequest) (pending, error) {
	record, err := encodeRecord(r)
	if err != nil {
		return pending{}, fmt.Errorf("keep difference of %s: %w", cluster, err)
	}
	if k.journal == nil {
		name, err := s.writeNew(journalHeader(k.id))
		if err == nil {
			err = s.rename(name, s.path(cluster, journalSuffix))
		}
		if err == nil {
			k.journal, err = openJournal(s.path(cluster, journalSuffix), journalHeaderSize)
		}
		if err != nil {
			return pending{}, fmt.Errorf("begin journal of %s: %w", cluster, err)
		}
	}
	if err := k.journal.reserve(len(record)); err != nil {
		return pending{}, fmt.Errorf("keep difference of %s: %w", cluster, err)
	}
	commit := func() error {
		if err := k.journal.append(record); err != nil {
			k.unsure = true
			return fmt.Errorf("keep difference of %s: %w", cluster, err)
		}
		return nil
	}
	return pending{commit: commit, abort: func() {}}, nil
}

// wantsSnapshot reports whether a cluster's journal has grown too long, or cannot
// be trusted after a failed write.
func (s *store) wantsSnapshot(cluster string) bool {
	k := s.clusters[cluster]
	return k != nil && (k.unsure || k.journal != nil && k.journal.end > max(compactAbove, k.snapshot))
}

// save replaces a cluster's files by one snapshot.
func (s *store) save(d router.Document) error {
	p, err := s.prepareSnapshot(d)
	if err != nil {
		return err
	}
	return p.commit()
}

// writeNew writes a synced file under a name of its own.
func (s *store) writeNew(content []byte) (name string, err error) {
	f, err := os.CreateTemp(s.dir, newPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func (s *store) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		_ = os.Remove(from)
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close ends the use of the files.
func (s *store) close() {
	for _, k := range s.clusters {
		if k.journal != nil {
			k.journal.close()
			k.journal = nil
		}
	}
}

// load returns all documents. A snapshot that cannot be used is set aside, a
// journal is followed as far as it can be, and both are reported in problems; the
// rest is loaded all the same.
func (s *store) load() (documents []router.Accepted, problems []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			_ = os.Remove(filepath.Join(s.dir, e.Name())) // from a write that was cut off
			continue
		}
		cluster, is := strings.CutSuffix(e.Name(), snapshotSuffix)
		if !is {
			continue
		}
		d, found, complaints := s.loadCluster(cluster)
		problems = append(problems, complaints...)
		if found {
			documents = append(documents, d)
		}
	}
	// What may be older than what ran comes last: of what two have, the other one's counts.
	slices.SortStableFunc(documents, func(x, y router.Accepted) int {
		return rank(s.clusters[x.Cluster].unsure) - rank(s.clusters[y.Cluster].unsure)
	})
	return documents, problems, nil
}

func rank(unsure bool) int {
	if unsure {
		return 1
	}
	return 0
}

func (s *store) loadCluster(cluster string) (d router.Accepted, found bool, problems []string) {
	path := s.path(cluster, snapshotSuffix)
	d, id, size, problem, err := readSnapshot(path, cluster)
	if problem != "" {
		problems = append(problems, problem)
	}
	if err != nil {
		problems = append(problems, fmt.Sprintf("document of cluster %s is unusable and was set aside as %s: %v", cluster, cluster+badSuffix, err))
		if err := os.Rename(path, s.path(cluster, badSuffix)); err != nil {
			problems = append(problems, fmt.Sprintf("set aside: %v", err))
		}
		return d, false, problems
	}
	k := &kept{id: id, snapshot: size}
	s.clusters[cluster] = k
	whole, end, err := followJournal(s.path(cluster, journalSuffix), id, d)
	if err != nil {
		k.unsure = true
		problems = append(problems, fmt.Sprintf("journal of cluster %s is damaged: generation %d runs until the cluster sends its document again: %v", cluster, whole.Generation, err))
	}
	if end == 0 {
		return whole, true, problems
	}
	if k.journal, err = openJournal(s.path(cluster, journalSuffix), end); err != nil {
		k.unsure = true
		problems = append(problems, fmt.Sprintf("journal of cluster %s: %v", cluster, err))
	}
	return whole, true, problems
}
