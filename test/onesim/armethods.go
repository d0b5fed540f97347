package onesim

import (
	"slices"
	"strconv"
)

func addressRangeMethods() []method {
	return []method{
		{name: "one.vn.add_ar", params: "is", write: true, run: vnAddAR},
		{name: "one.vn.update_ar", params: "is", write: true, run: vnUpdateAR},
		{name: "one.vn.rm_ar", params: "ii|b", write: true, run: vnRmAR},
	}
}

// rangeArgs are the network and the AR vectors of a call.
func (c *call) rangeArgs(op operation) (*vnet, []*attribute, error) {
	v, err := c.vnetArg(op)
	if err != nil {
		return nil, nil, err
	}
	if v.state == netLockCreate || v.state == netLockDelete {
		return nil, nil, fail(CodeAction, "Could not execute %sVirtual Network is in wrong state: %s", c.method.name, v.state)
	}
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, nil, err
	}
	list := t.vectors("AR")
	if len(list) == 0 {
		return nil, nil, fail(CodeInternal, "Wrong AR definition. AR vector attribute is missing.")
	}
	return v, list, nil
}

func vnAddAR(c *call) (any, error) {
	v, list, err := c.rangeArgs(opAdmin)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if err := c.addRange(v, a); err != nil {
			return nil, err
		}
	}
	return v.id, nil
}

func vnUpdateAR(c *call) (any, error) {
	v, list, err := c.rangeArgs(opManage)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		id, err := strconv.Atoi(a.get("AR_ID"))
		if err != nil {
			return nil, fail(CodeInternal, "Missing AR_ID in AR vector attribute.")
		}
		ar := v.ar(id)
		if ar == nil {
			return nil, fail(CodeInternal, "Address Range with ID %d was not found.", id)
		}
		if err := ar.update(a, v.parent >= 0); err != nil {
			return nil, err
		}
	}
	return v.id, nil
}

// update replaces the free attributes and the size; addresses and type are silently kept.
func (r *addrRange) update(a *attribute, reserved bool) error {
	size := r.size
	if text := a.get("SIZE"); text != "" {
		var err error
		if size, err = strconv.Atoi(text); err != nil || size <= 0 {
			return fail(CodeInternal, "Wrong SIZE for address range")
		}
	}
	if reserved && size != r.size {
		return fail(CodeInternal, "The SIZE of a reservation cannot be changed.")
	}
	if size < r.size && r.leases.max() >= size {
		return fail(CodeInternal, "New SIZE cannot be applied. There are used leases that would fall outside the range.")
	}
	if rangeTypes[r.typ].slaac {
		var sent addrRange
		if err := sent.readPrefixes(a); err != nil {
			return err
		}
		// A prefix that is left out is cleared, as by oned's AddressRange::update_attributes.
		r.global, r.ula = sent.global, sent.ula
		r.setPrefixText("GLOBAL_PREFIX", a.get("GLOBAL_PREFIX"))
		r.setPrefixText("ULA_PREFIX", a.get("ULA_PREFIX"))
	}
	if text := a.get("PREFIX_LENGTH"); text != "" && rangeTypes[r.typ].static6 {
		r.setPrefixText("PREFIX_LENGTH", text)
	}
	r.size, r.next, r.custom = size, r.next%size, slices.Clone(freePairs(a))
	return nil
}

func vnRmAR(c *call) (any, error) {
	v, err := c.vnetArg(opAdmin)
	if err != nil {
		return nil, err
	}
	return v.id, c.dropRange(v, c.int(1), c.bool(2))
}
