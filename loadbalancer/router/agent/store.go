package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

const (
	storeMagic  = "onelb-document-1\n"
	storeSuffix = ".document"
	badSuffix   = ".corrupt"
)

// store keeps one file for each cluster: a magic line, SHA-256 of the rest, the
// document in its wire form. A file is replaced by renaming a synced one, so it
// is always the old or the new one.
type store struct{ dir string }

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &store{dir: dir}, nil
}

func (s *store) path(cluster string) string { return filepath.Join(s.dir, cluster+storeSuffix) }

// save writes the document; a document of generation 0 removes the file.
func (s *store) save(d router.Document) error {
	if d.Generation == 0 {
		return s.remove(d.Cluster)
	}
	body, err := proto.Marshal(router.ToWire(d))
	if err != nil {
		return fmt.Errorf("keep document of %s: %w", d.Cluster, err)
	}
	sum := sha256.Sum256(body)
	if err := s.replace(s.path(d.Cluster), []byte(storeMagic), sum[:], body); err != nil {
		return fmt.Errorf("keep document of %s: %w", d.Cluster, err)
	}
	return nil
}

func (s *store) remove(cluster string) error {
	if err := os.Remove(s.path(cluster)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove document of %s: %w", cluster, err)
	}
	return s.syncDir()
}

func (s *store) replace(path string, parts ...[]byte) (err error) {
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load returns all documents. A file that cannot be used is set aside and
// reported in problems; the rest is loaded all the same.
func (s *store) load() (documents []router.Document, problems []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), ".new-") {
			_ = os.Remove(path) // from a write that was cut off
			continue
		}
		cluster, is := strings.CutSuffix(e.Name(), storeSuffix)
		if !is {
			continue
		}
		d, err := read(path, cluster)
		if err != nil {
			problems = append(problems, fmt.Sprintf("document of cluster %s is unusable and was set aside as %s: %v", cluster, cluster+badSuffix, err))
			if err := os.Rename(path, filepath.Join(s.dir, cluster+badSuffix)); err != nil {
				problems = append(problems, fmt.Sprintf("set aside: %v", err))
			}
			continue
		}
		documents = append(documents, d)
	}
	return documents, problems, nil
}

func read(path, cluster string) (router.Document, error) {
	b, err := os.ReadFile(path) //nolint:gosec // in the state directory
	if err != nil {
		return router.Document{}, err
	}
	d, err := decodeStored(b)
	if err != nil {
		return router.Document{}, err
	}
	if d.Cluster != cluster {
		return router.Document{}, fmt.Errorf("it is of cluster %q", d.Cluster)
	}
	return d, nil
}

func decodeStored(b []byte) (router.Document, error) {
	rest, is := bytes.CutPrefix(b, []byte(storeMagic))
	if !is || len(rest) < sha256.Size {
		return router.Document{}, errors.New("not a document, or cut off")
	}
	body := rest[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return router.Document{}, errors.New("checksum does not match")
	}
	var w wire.Document
	if err := proto.Unmarshal(body, &w); err != nil {
		return router.Document{}, err
	}
	d, err := router.FromWire(&w)
	if err != nil {
		return router.Document{}, err
	}
	return d, d.Validate()
}
