package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer"
)

const (
	clusterFile = "cluster.json"
	heldFile    = "held.json"
	networkFile = "bgp.json"
	// saveInterval bounds how often the disk is written.
	saveInterval = time.Second
)

// store keeps the last known cluster and the held addresses as files that are
// replaced whole, so a crash leaves the old or the new content. Setting does not
// block: Run writes.
type store struct {
	dir     string
	changed chan struct{}

	cluster *announcer.Cluster // as read at start
	network *network           // as read at start

	mu    sync.Mutex // guards the rest
	held  map[netip.Addr]announcer.Holding
	files map[string]any    // content to be written, encoded then; nobody changes it
	disk  map[string][]byte // content written last
}

var _ announcer.Memory = (*store)(nil)

// openStore reads what is there. A file that cannot be understood counts as
// absent: what it says can be learned from the others and from the kernel.
func openStore(dir string, logger klog.Logger) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	s := &store{
		dir: dir, changed: make(chan struct{}, 1), cluster: &announcer.Cluster{}, network: &network{},
		held: map[netip.Addr]announcer.Holding{}, files: map[string]any{}, disk: map[string][]byte{},
	}
	for name, into := range map[string]any{clusterFile: s.cluster, heldFile: &s.held, networkFile: s.network} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read state: %w", err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			logger.Error(err, "Ignored a broken state file", "file", name)
			continue
		}
		s.disk[name] = b
	}
	return s, nil
}

// Held returns what an earlier run held.
func (s *store) Held() map[netip.Addr]announcer.Holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.held)
}

// SetHeld replaces it.
func (s *store) SetHeld(held map[netip.Addr]announcer.Holding) {
	ours := maps.Clone(held)
	s.mu.Lock()
	s.held = ours
	s.mu.Unlock()
	s.set(heldFile, ours)
}

// setCluster keeps what the API server said. The cluster must not be changed any more.
func (s *store) setCluster(c *announcer.Cluster) { s.set(clusterFile, c) }

// setNetwork does the same with what is about BGP.
func (s *store) setNetwork(n *network) { s.set(networkFile, n) }

func (s *store) set(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = value
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run writes what was set until ctx is done. Call flush after it for the rest.
func (s *store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		if err := s.flush(); err != nil {
			klog.FromContext(ctx).Error(err, "Could not save the state")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(saveInterval):
		}
	}
}

// flush writes what was set and is not on disk yet.
func (s *store) flush() error {
	s.mu.Lock()
	files := maps.Clone(s.files)
	clear(s.files)
	s.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content, err := json.Marshal(files[name]) // maps are sorted by key
		if err != nil {
			panic(fmt.Sprintf("state %s cannot be encoded: %v", name, err)) // our own plain types
		}
		if bytes.Equal(s.disk[name], content) {
			continue
		}
		if err := replaceFile(filepath.Join(s.dir, name), content); err != nil {
			errs = append(errs, fmt.Errorf("save state: %w", err))
			continue
		}
		s.disk[name] = content
	}
	return errors.Join(errs...)
}

func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
