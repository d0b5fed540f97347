package virtualip

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Options configures a Store.
type Options struct {
	Client client.VirtualIPs
	// Informer of all VirtualIPs. The store adds its handler; the caller runs it.
	Informer cache.SharedIndexInformer
	// Announced reports whether somebody may still answer for an address that
	// no Service has any more. It must not block, nor call the store.
	Announced func(*v1alpha1.VirtualIP) bool
	// OnChange is called, after every change that was not this store's own,
	// from the informer's goroutine. It must not block.
	OnChange func()
	// RequestTimeout is the deadline of one call to the API server. Default 10s.
	RequestTimeout time.Duration
}

// Store is the set of all VirtualIPs. Safe for concurrent use.
type Store struct {
	client    client.VirtualIPs
	informer  cache.SharedIndexInformer
	announced func(*v1alpha1.VirtualIP) bool
	onChange  func()
	timeout   time.Duration

	restoring sync.Mutex // one Restore at a time

	mu      sync.RWMutex // guards all below
	objects map[netip.Addr]*v1alpha1.VirtualIP
	owned   map[types.UID][]netip.Addr // UID of a Service → its addresses
	shared  map[string][]netip.Addr    // sharing key → addresses
	names   map[string][]netip.Addr    // namespace/name → addresses kept for it
	// gone are UIDs of objects that this store removed and that the watch may
	// still bring up once more.
	gone map[types.UID]time.Time
	// kept are objects that are being restored: they stay here while the API
	// has neither the old nor the new one.
	kept map[netip.Addr]types.UID
}

var _ ipam.Records = (*Store)(nil)

// New makes a store. It is empty until the informer has synced.
func New(o Options) (*Store, error) {
	if o.Client == nil || o.Informer == nil {
		return nil, errors.New("virtualip: Client and Informer are required")
	}
	s := &Store{
		client:    o.Client,
		informer:  o.Informer,
		announced: o.Announced,
		onChange:  o.OnChange,
		timeout:   o.RequestTimeout,
		objects:   map[netip.Addr]*v1alpha1.VirtualIP{},
		owned:     map[types.UID][]netip.Addr{},
		shared:    map[string][]netip.Addr{},
		names:     map[string][]netip.Addr{},
		gone:      map[types.UID]time.Time{},
		kept:      map[netip.Addr]types.UID{},
	}
	if s.announced == nil {
		s.announced = func(*v1alpha1.VirtualIP) bool { return false }
	}
	if s.onChange == nil {
		s.onChange = func() {}
	}
	if s.timeout == 0 {
		s.timeout = 10 * time.Second
	}
	_, err := o.Informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { s.observe(obj) },
		UpdateFunc: func(_, obj any) { s.observe(obj) },
		DeleteFunc: s.observeDelete,
	})
	if err != nil {
		return nil, fmt.Errorf("watch VirtualIPs: %w", err)
	}
	return s, nil
}

// Informer is the informer that the store was made with.
func (s *Store) Informer() cache.SharedIndexInformer { return s.informer }

// HasSynced reports whether the store has seen all objects.
func (s *Store) HasSynced() bool { return s.informer.HasSynced() }

// List returns all records, sorted by address.
func (s *Store) List() []ipam.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	// Addresses are sorted, since records are ten times their size.
	addrs := slices.AppendSeq(make([]netip.Addr, 0, len(s.objects)), maps.Keys(s.objects))
	slices.SortFunc(addrs, netip.Addr.Compare)
	out := make([]ipam.Record, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, s.record(a, s.objects[a]))
	}
	return out
}

// Get returns the record of an address.
func (s *Store) Get(a netip.Addr) (ipam.Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.objects[a]
	if !ok {
		return ipam.Record{}, false
	}
	return s.record(a, v), true
}

// OwnedBy returns the records of a Service, sorted by address.
func (s *Store) OwnedBy(service types.UID) []ipam.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]ipam.Record, 0, len(s.owned[service]))
	for _, a := range s.owned[service] {
		out = append(out, s.record(a, s.objects[a]))
	}
	slices.SortFunc(out, func(a, b ipam.Record) int { return a.Address.Compare(b.Address) })
	return out
}

// Shared returns the records with a sharing key, sorted by address.
func (s *Store) Shared(key string) []ipam.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []ipam.Record
	for _, a := range s.shared[key] {
		out = append(out, s.record(a, s.objects[a]))
	}
	slices.SortFunc(out, func(a, b ipam.Record) int { return a.Address.Compare(b.Address) })
	return out
}

// Retained returns the records that are kept for a Service of this name, sorted
// by address.
func (s *Store) Retained(namespace, name string) []ipam.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []ipam.Record
	for _, a := range s.names[namespace+"/"+name] {
		if v := s.objects[a]; keptFor(v, v1alpha1.ServiceReference{Namespace: namespace, Name: name}) {
			out = append(out, s.record(a, v))
		}
	}
	slices.SortFunc(out, func(a, b ipam.Record) int { return a.Address.Compare(b.Address) })
	return out
}

// Objects returns the VirtualIPs for which keep is true, sorted by address.
// They are shared: do not change them.
func (s *Store) Objects(keep func(*v1alpha1.VirtualIP) bool) []*v1alpha1.VirtualIP {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var addrs []netip.Addr // most often few of thousands
	for a, v := range s.objects {
		if keep(v) {
			addrs = append(addrs, a)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	out := make([]*v1alpha1.VirtualIP, len(addrs))
	for i, a := range addrs {
		out[i] = s.objects[a]
	}
	return out
}

// observe takes in what the watch says.
func (s *Store) observe(obj any) {
	v, ok := obj.(*v1alpha1.VirtualIP)
	if !ok {
		return
	}
	if s.put(v) {
		s.onChange()
		return
	}
	s.adopt(v)
}

// adopt takes the informer's object in place of an equal one that came as the
// answer to a write: the informer keeps its own, and one of the two is enough.
func (s *Store) adopt(v *v1alpha1.VirtualIP) {
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.objects[a]; old != nil && old.UID == v.UID && old.ResourceVersion == v.ResourceVersion {
		s.objects[a] = v
	}
}

func (s *Store) observeDelete(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	v, ok := obj.(*v1alpha1.VirtualIP)
	if !ok {
		return
	}
	s.remove(v)
	s.mu.Lock()
	delete(s.gone, v.UID) // the watch will not bring it up again
	s.mu.Unlock()
	s.onChange()
}

// put takes in an object unless a newer one is known. It reports whether it
// changed anything.
func (s *Store) put(v *v1alpha1.VirtualIP) bool {
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil || v1alpha1.VirtualIPName(a) != v.Name {
		klog.ErrorS(err, "Ignoring a VirtualIP whose name is not that of its address; delete it", "virtualIP", klog.KObj(v), "address", v.Spec.Address)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, removed := s.gone[v.UID]; removed {
		return false
	}
	old := s.objects[a]
	if old != nil && old.UID == v.UID && !newer(v, old) {
		return false
	}
	if old != nil {
		s.unindex(a, old)
	}
	s.objects[a] = v
	for _, ref := range v.Spec.Services {
		enter(s.owned, ref.UID, a)
	}
	if v.Spec.Share != "" {
		enter(s.shared, v.Spec.Share, a)
	}
	if r := v.Spec.Retain; r != nil {
		enter(s.names, r.Namespace+"/"+r.Name, a)
	}
	return true
}

func (s *Store) remove(v *v1alpha1.VirtualIP) {
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.objects[a]; old != nil && old.UID == v.UID && s.kept[a] != v.UID {
		s.unindex(a, old)
		delete(s.objects, a)
	}
}

// unindex needs s.mu.
func (s *Store) unindex(a netip.Addr, v *v1alpha1.VirtualIP) {
	for _, ref := range v.Spec.Services {
		leave(s.owned, ref.UID, a)
	}
	leave(s.shared, v.Spec.Share, a)
	if r := v.Spec.Retain; r != nil {
		leave(s.names, r.Namespace+"/"+r.Name, a)
	}
}

// enter and leave keep sets: of a few addresses each, and there is one for each
// Service.
func enter[K comparable](m map[K][]netip.Addr, k K, a netip.Addr) {
	if !slices.Contains(m[k], a) {
		m[k] = append(m[k], a)
	}
}

func leave[K comparable](m map[K][]netip.Addr, k K, a netip.Addr) {
	i := slices.Index(m[k], a)
	switch {
	case i < 0:
	case len(m[k]) == 1:
		delete(m, k)
	default:
		m[k] = slices.Delete(m[k], i, i+1)
	}
}

// newer compares resource versions, which Kubernetes guarantees to be
// comparable numbers. What cannot be compared counts as newer.
func newer(a, b *v1alpha1.VirtualIP) bool {
	c, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || c > 0
}
