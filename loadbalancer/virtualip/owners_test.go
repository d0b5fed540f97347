package virtualip

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

func shared(ports ...string) Detail {
	d := detail
	d.Share, d.Ports = "key", ports
	return d
}

func service(name string) v1alpha1.ServiceReference {
	return v1alpha1.ServiceReference{Namespace: "ns", Name: name, UID: types.UID(name)}
}

// disjoint is the rule that matters: no port twice.
func disjoint(ports ...string) func(*v1alpha1.VirtualIP) error {
	return func(v *v1alpha1.VirtualIP) error {
		for _, s := range v.Spec.Services {
			for _, p := range ports {
				if slices.Contains(s.Ports, p) {
					return errClash
				}
			}
		}
		return nil
	}
}

var errClash = errors.New("clash")

func TestOwnJoinsUntilTheLastHasLeft(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	if _, err := s.Create(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{{Namespace: "ns", Name: "b", UID: "b"}}, Detail: shared("80/TCP")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Own(ctx, addr, service("a"), shared("80/TCP"), disjoint("80/TCP")); !errors.Is(err, errClash) {
		t.Errorf("%v, want what admit says", err)
	}
	r, err := s.Own(ctx, addr, service("a"), shared("443/TCP"), disjoint("443/TCP"))
	if err != nil || len(r.Owners) != 2 || r.Owners[0].Name != "a" {
		t.Fatalf("%+v, %v", r, err)
	}
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil || !slices.Equal(v.Spec.Services[1].Ports, []string{"80/TCP"}) || v.Spec.Share != "key" {
		t.Errorf("%+v, %v", v.Spec, err)
	}
	writes := len(c.Actions())
	if _, err := s.Own(ctx, addr, service("a"), shared("443/TCP"), func(*v1alpha1.VirtualIP) error { return errClash }); err != nil || len(c.Actions()) != writes {
		t.Errorf("%v: nothing changed, nothing is written", err)
	}
	if left, err := s.Disown(ctx, addr, "b", false); left.Services != 1 || err != nil {
		t.Errorf("%+v left, %v", left, err)
	}
	if r, _ := s.Get(addr); r.Phase != ipam.Active {
		t.Errorf("%+v: a has it still", r)
	}
	if left, err := s.Disown(ctx, addr, "a", false); left.Services != 0 || err != nil {
		t.Errorf("%+v left, %v", left, err)
	}
	if r, _ := s.Get(addr); r.Phase != ipam.Releasing {
		t.Errorf("%+v, want it to be released", r)
	}
	if _, err := s.Own(ctx, addr, service("a"), shared("443/TCP"), disjoint()); !errors.Is(err, ErrReleased) {
		t.Errorf("%v, want ErrReleased", err)
	}
	if len(s.Shared("other")) != 0 || len(s.Shared("key")) != 1 {
		t.Error("index of keys")
	}
}

func TestOwnOfAnObjectThatIsBeingDeleted(t *testing.T) {
	s, c := newStore(t)
	create(t, s)
	ctx := t.Context()
	if err := c.VirtualIPs().Delete(ctx, addr.String(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The store may not have heard of it: then the write fails, and it reads.
	if _, err := s.Own(ctx, addr, service("a"), shared("1/TCP"), disjoint()); !errors.Is(err, ErrReleased) {
		t.Errorf("%v, want ErrReleased", err)
	}
}

// Two processes join and leave the same addresses at random, and a third party
// writes the status. No join is lost, no port is given twice, and nobody joins
// what is released.
func TestOwnAndDisownAtOnce(t *testing.T) {
	c := fake.New()
	s1, s2 := deafStore(t, c), deafStore(t, c) // as outdated as can be
	ctx := t.Context()
	if _, err := s1.Create(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{{Namespace: "ns", Name: "first", UID: "first"}}, Detail: shared("1/TCP")}); err != nil {
		t.Fatal(err)
	}
	if err := s2.reread(ctx, &v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: addr.String()}}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	in := make([]bool, 8)
	for i := range in {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			s, ref, port := []*Store{s1, s2}[i%2], service(fmt.Sprint("s", i)), fmt.Sprintf("%d/TCP", 100+i/2)
			for range 60 {
				if rng.IntN(2) == 0 {
					_, err := s.Own(ctx, addr, ref, shared(port), func(v *v1alpha1.VirtualIP) error {
						for _, o := range v.Spec.Services {
							if o.UID != ref.UID && slices.Contains(o.Ports, port) {
								return errClash
							}
						}
						return nil
					})
					switch {
					case err == nil:
						in[i] = true
					case !errors.Is(err, errClash) && !errors.Is(err, ipam.ErrConflict):
						t.Error(err)
					}
					continue
				}
				if _, err := s.Disown(ctx, addr, ref.UID, false); err == nil {
					in[i] = false
				} else if !errors.Is(err, ipam.ErrConflict) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for n := range 30 {
				if err := s1.SetRouterGeneration(ctx, addr, uint64(n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, o := range v.Spec.Services {
		for _, p := range o.Ports {
			if ports[p] != "" {
				t.Errorf("port %s belongs to %s and %s", p, ports[p], o.Name)
			}
			ports[p] = o.Name
		}
	}
	for i, want := range in {
		if got := slices.ContainsFunc(v.Spec.Services, func(o v1alpha1.ServiceReference) bool { return o.Name == fmt.Sprint("s", i) }); got != want {
			t.Errorf("s%d: on the address %v, told so %v", i, got, want)
		}
	}
}

func TestRetain(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	d := detail
	d.Retain = time.Hour
	if _, err := s.Create(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: d}); err != nil {
		t.Fatal(err)
	}
	left, err := s.Disown(ctx, addr, "u1", true)
	if err != nil || time.Until(left.Until) < 59*time.Minute {
		t.Fatalf("%+v, %v", left, err)
	}
	if r, _ := s.Get(addr); r.Phase != ipam.Active || len(r.Owners) != 0 {
		t.Errorf("%+v, want it to be kept", r)
	}
	if len(s.Retained("ns", "web")) != 1 || len(s.Retained("ns", "other")) != 0 {
		t.Error("index of names")
	}
	all := func(*v1alpha1.VirtualIP) error { return nil }
	if _, err := s.Own(ctx, addr, service("other"), detail, all); !errors.Is(err, ErrReleased) {
		t.Errorf("%v, want ErrReleased for another name", err)
	}
	again := v1alpha1.ServiceReference{Namespace: "ns", Name: "web", UID: "u2"}
	if r, err := s.Own(ctx, addr, again, d, all); err != nil || len(r.Owners) != 1 || r.Owners[0].UID != "u2" {
		t.Fatalf("%+v, %v", r, err)
	}
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil || v.Spec.Retain != nil || v.Spec.ReleaseTime != nil {
		t.Errorf("%+v, %v", v.Spec, err)
	}
	if left, err := s.Disown(ctx, addr, "u2", true); err != nil || left.Until.IsZero() {
		t.Fatalf("%+v, %v", left, err)
	}
	t.Run("time over", func(t *testing.T) {
		s, err := expired(t, s, c, -time.Second)
		if r, _ := s.Get(addr); err == nil || r.Phase != ipam.Releasing {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("nearly over", func(t *testing.T) {
		s, err := expired(t, s, c, 3*time.Second)
		if r, _ := s.Get(addr); !errors.Is(err, ErrReleased) || r.Phase != ipam.Active {
			t.Errorf("%+v, %v: IPAM may be about to release it", r, err)
		}
	})
	t.Run("deleted by a person", func(t *testing.T) {
		if _, err := expired(t, s, c, time.Hour); err != nil {
			t.Fatal(err) // u3 has come in time
		}
		if _, err := s.Own(ctx, addr, v1alpha1.ServiceReference{Namespace: "ns", Name: "web", UID: "u3"}, d, all); err != nil {
			t.Fatal(err)
		}
		if left, err := s.Disown(ctx, addr, "u3", true); err != nil || left.Until.IsZero() {
			t.Fatalf("%+v, %v", left, err)
		}
		if err := c.VirtualIPs().Delete(ctx, addr.String(), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Own(ctx, addr, again, d, all); !errors.Is(err, ErrReleased) {
			t.Errorf("%v, want ErrReleased", err)
		}
		if r, _ := s.Get(addr); r.Phase != ipam.Releasing {
			t.Errorf("%+v, want it to be released", r)
		}
	})
}

// expired moves the end of the retention, and tries to own the address.
func expired(t *testing.T, s *Store, c *fake.Clientset, in time.Duration) (*Store, error) {
	t.Helper()
	until, err := json.Marshal(metav1.NewTime(time.Now().Add(in)))
	if err != nil {
		t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"spec":{"services":[],"retain":{"namespace":"ns","name":"web","until":%s}}}`, until)
	n, err := c.VirtualIPs().Patch(t.Context(), addr.String(), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.put(n)
	_, err = s.Own(t.Context(), addr, v1alpha1.ServiceReference{Namespace: "ns", Name: "web", UID: "u3"}, detail, func(*v1alpha1.VirtualIP) error { return nil })
	return s, err
}
