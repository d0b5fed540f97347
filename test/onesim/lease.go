package onesim

import (
	"slices"
	"strconv"
	"strings"
)

// An owner of an address is oned's type bit with the object's id; a hold is VM -1.
const (
	ownerVM      uint64 = 0x1000000000
	ownerNet     uint64 = 0x4000000000
	ownerVRouter uint64 = 0x4000000000000
	ownerHold    uint64 = ownerVM | idMask
)

// lease is one address in use; index counts from the range's first address.
type lease struct {
	index int
	owner uint64
}

// leaseSet is sorted by index, then owner; only a SHARED range has several owners at one index.
type leaseSet struct {
	list    []lease
	used    int  // indexes with at least one owner
	touched bool // oned shows an empty ALLOCATED once there was a lease
}

func compareLeases(a, b lease) int {
	if a.index != b.index {
		return a.index - b.index
	}
	switch {
	case a.owner < b.owner:
		return -1
	case a.owner > b.owner:
		return 1
	}
	return 0
}

func (s *leaseSet) at(index int) []lease {
	from, _ := slices.BinarySearchFunc(s.list, lease{index: index}, compareLeases)
	to := from
	for to < len(s.list) && s.list[to].index == index {
		to++
	}
	return s.list[from:to]
}

func (s *leaseSet) taken(index int) bool { return len(s.at(index)) > 0 }

func (s *leaseSet) has(index int, owner uint64) bool {
	_, ok := slices.BinarySearchFunc(s.list, lease{index, owner}, compareLeases)
	return ok
}

func (s *leaseSet) add(index int, owner uint64) {
	if !s.taken(index) {
		s.used++
	}
	i, ok := slices.BinarySearchFunc(s.list, lease{index, owner}, compareLeases)
	if !ok {
		s.list = slices.Insert(s.list, i, lease{index, owner})
	}
	s.touched = true
}

func (s *leaseSet) remove(index int, owner uint64) bool {
	i, ok := slices.BinarySearchFunc(s.list, lease{index, owner}, compareLeases)
	if !ok {
		return false
	}
	s.list = slices.Delete(s.list, i, i+1)
	if !s.taken(index) {
		s.used--
	}
	return true
}

// max is the highest index in use, -1 without one.
func (s *leaseSet) max() int {
	if len(s.list) == 0 {
		return -1
	}
	return s.list[len(s.list)-1].index
}

// raw is the ALLOCATED attribute of the pool: " index owner index owner".
func (s *leaseSet) raw() string {
	var b strings.Builder
	for _, l := range s.list {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(l.index))
		b.WriteByte(' ')
		b.WriteString(strconv.FormatUint(l.owner, 10))
	}
	return b.String()
}

// ownerPair is how a lease names its owner.
func ownerPair(owner uint64) pair {
	id := strconv.FormatInt(int64(int32(owner&idMask)), 10)
	switch owner &^ idMask {
	case ownerNet:
		return pair{"VNET", id}
	case ownerVRouter:
		return pair{"VROUTER", id}
	}
	return pair{"VM", id}
}

// leaseMethods are hold and release.
func leaseMethods() []method {
	return []method{
		{name: "one.vn.hold", params: "is", write: true, run: vnHold},
		{name: "one.vn.release", params: "is", write: true, run: vnRelease},
	}
}

// leaseRequest is what a LEASES attribute asks for: exactly one of the addresses, perhaps in one range only.
type leaseRequest struct {
	key, value string
	arID       int // -1: all
}

func (c *call) leaseArgs() (*vnet, leaseRequest, error) {
	var req leaseRequest
	v, err := c.vnetArg(opManage)
	if err != nil {
		return nil, req, err
	}
	if v.state != netReady && v.state != netUpdateFailure {
		return nil, req, fail(CodeAction, "Could not execute %sVirtual Network is in wrong state: %s", c.method.name, v.state)
	}
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, req, err
	}
	leases := t.vectors("LEASES")
	if len(leases) == 0 {
		return nil, req, fail(CodeInternal, "Empty lease description.")
	}
	req, err = parseLeaseRequest(leases[0])
	return v, req, err
}

func parseLeaseRequest(a *attribute) (leaseRequest, error) {
	req := leaseRequest{arID: -1}
	for _, key := range []string{"MAC", "IP", "IP6"} {
		value := a.get(key)
		if value == "" {
			continue
		}
		if req.key != "" {
			return req, fail(CodeInternal, "Only one attribute MAC, IP or IP6 can be set.")
		}
		req.key, req.value = key, value
	}
	if req.key == "" {
		return req, fail(CodeInternal, "Missing MAC, IP or IP6.")
	}
	if text := a.get("AR_ID"); text != "" {
		id, err := strconv.Atoi(text)
		if err != nil {
			return req, fail(CodeInternal, "Wrong AR_ID %q.", text)
		}
		req.arID = id
	}
	return req, nil
}

// vnHold holds the address in every range that has it free; one is enough.
func vnHold(c *call) (any, error) {
	v, req, err := c.leaseArgs()
	if err != nil {
		return nil, err
	}
	held := false
	for _, ar := range v.rangesFor(req.arID) {
		index, ok := ar.index(req.key, req.value)
		if ok && ar.canHold(index) {
			ar.leases.add(index, ownerHold)
			held = true
		}
	}
	if !held {
		return nil, fail(CodeInternal, "Address is not part of the address range or in use.")
	}
	return v.id, nil
}

// vnRelease drops holds only, and is content when there is none.
func vnRelease(c *call) (any, error) {
	v, req, err := c.leaseArgs()
	if err != nil {
		return nil, err
	}
	for _, ar := range v.rangesFor(req.arID) {
		if index, ok := ar.index(req.key, req.value); ok {
			ar.leases.remove(index, ownerHold)
		}
	}
	return v.id, nil
}
