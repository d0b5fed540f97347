package one

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/onelb/onelb/ipam"
)

// nameIn names an address of a range in a way that oned finds it.
func nameIn(r ipam.Range, a netip.Addr) (attribute, error) {
	which, err := addressAttribute(a)
	if err != nil || which.name != "IP6" || !isSLAAC(r.Kind) {
		return which, err
	}
	mac, ok := macOf(a)
	if !ok {
		return which, fmt.Errorf("%s is not made of a MAC address, as those of range %d are", a, r.ID)
	}
	return attribute{name: "MAC", value: mac.String()}, nil
}

// prefixes are the attributes of a range that IPv6 addresses are made of.
var prefixes = []string{"GLOBAL_PREFIX", "ULA_PREFIX"}

// spellings knows the IPv6 ranges of the networks that were read. A range's type
// and MAC addresses never change; an address that is in none of the ranges makes
// the client read the network anew. What is outdated names nothing: the MAC is
// not in the range of that ID.
type spellings struct {
	mu sync.Mutex // guards of
	of map[ipam.NetworkID][]ipam.Range
}

// learn takes over what was read of a network.
func (s *spellings) learn(n ipam.Network) {
	ranges := []ipam.Range{}
	for _, r := range n.Ranges {
		if !r.First6.IsValid() && !isSLAAC(r.Kind) {
			continue
		}
		short := ipam.Range{ID: r.ID, Kind: r.Kind, First6: r.First6, Size: r.Size}
		for _, name := range prefixes {
			if text := r.Attributes[name]; text != "" && isSLAAC(r.Kind) {
				if short.Attributes == nil {
					short.Attributes = map[string]string{}
				}
				short.Attributes[name] = text
			}
		}
		ranges = append(ranges, short)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[ipam.NetworkID][]ipam.Range{}
	}
	s.of[n.ID] = ranges
}

// prefixes returns those of a range, and whether the network is known.
func (s *spellings) prefixes(id ipam.NetworkID, r ipam.RangeID) (map[string]string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ranges, known := s.of[id]
	if i := slices.IndexFunc(ranges, func(x ipam.Range) bool { return x.ID == r }); i >= 0 {
		return ranges[i].Attributes, true
	}
	return nil, known
}

func (s *spellings) forget(id ipam.NetworkID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.of, id)
}

// find returns the first range of the network that has the address.
func (s *spellings) find(id ipam.NetworkID, a netip.Addr) (ipam.Range, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.of[id] {
		if d, ok := distance(r.First6, a); ok && d < r.Size {
			return r, true
		}
	}
	return ipam.Range{}, false
}

// leaseOf names an address for hold and release. A MAC comes with the range: two
// ranges of a network may have the same MACs, with another prefix each.
func (c *Client) leaseOf(ctx context.Context, id ipam.NetworkID, a netip.Addr) ([]attribute, error) {
	which, err := addressAttribute(a)
	if err != nil {
		return nil, err
	}
	if _, made := macOf(a); !made || which.name != "IP6" {
		return []attribute{which}, nil
	}
	r, known := c.spellings.find(id, a)
	if !known {
		if _, err := c.Get(ctx, id); err != nil {
			return nil, err
		}
		if r, known = c.spellings.find(id, a); !known {
			return []attribute{which}, nil // oned says what there is to say
		}
	}
	if which, err = nameIn(r, a); err != nil || which.name != "MAC" {
		return []attribute{which}, err
	}
	return []attribute{which, {name: "AR_ID", value: strconv.Itoa(int(r.ID))}}, nil
}

// withPrefixes adds to new attributes of a range the prefixes that it has.
// one.vn.update_ar clears what is left out, and the range has no IPv6 addresses
// any more, or others.
func (c *Client) withPrefixes(ctx context.Context, id ipam.NetworkID, r ipam.RangeID, attributes map[string]string) (map[string]string, error) {
	standing, known := c.spellings.prefixes(id, r)
	if !known {
		if _, err := c.Get(ctx, id); err != nil {
			return nil, err
		}
		standing, _ = c.spellings.prefixes(id, r)
	}
	all := maps.Clone(standing)
	if all == nil {
		return attributes, nil
	}
	maps.Copy(all, attributes)
	return all, nil
}
