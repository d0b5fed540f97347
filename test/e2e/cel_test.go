package e2e_test

import "testing"

// TestInvalidObjects applies AddressPools that the API server itself refuses, with
// a message that says what is wrong.
func TestInvalidObjects(t *testing.T) {
	w := newWorld(t)
	const l2 = "network: {name: private}, exposure: L2"
	for name, c := range map[string]struct{ spec, message string }{
		"no-network":             {"exposure: L2", "spec.network: Required value"},
		"two-networks":           {"network: {name: a, id: 3}, exposure: L2", "give either id or name of the virtual network"},
		"nameless":               {"network: {}, exposure: L2", "give either id or name of the virtual network"},
		"owner-of-id":            {"network: {id: 3, owner: x}, exposure: L2", "owner goes with name"},
		"exposure":               {"network: {name: a}, exposure: ARP", `Unsupported value: "ARP"`},
		"no-router":              {"network: {name: a}, exposure: Router", "spec.router is required with exposure Router"},
		"router-of-l2":           {l2 + ", router: {name: edge}", "spec.router is required with exposure Router, and only there"},
		"l2-of-router":           {"network: {name: a}, exposure: Router, router: {name: edge}, l2: {interfaces: [eth0]}", "spec.l2 is only for exposure L2"},
		"no-inner":               {"network: {name: a}, exposure: Router, router: {name: edge, forward: VIP}", "innerPool is required with forward VIP"},
		"forward":                {"network: {name: a}, exposure: Router, router: {name: edge, forward: Pods}", `Unsupported value: "Pods"`},
		"inner-of-pods":          {"network: {name: a}, exposure: Router, router: {name: edge, forward: Pod, innerPool: x}", "innerPool is required with forward VIP, and only there"},
		"snat":                   {"network: {name: a}, exposure: Router, router: {name: edge, snat: sometimes}", `Unsupported value: "sometimes"`},
		"snat-of-route":          {"network: {name: a}, exposure: Router, router: {name: edge, forward: Route, snat: always}", "snat always needs a router that translates"},
		"mixed-range":            {l2 + `, ranges: [{start: 10.0.0.1, end: "fd00::1"}]`, "start and end are addresses of the same family"},
		"no-address":             {l2 + `, ranges: [{start: 10.0.0.1, end: 10.0.0.256}]`, "start and end are addresses of the same family"},
		"chunk":                  {l2 + ", chunkSize: 0", "should be greater than or equal to 1"},
		"unknown-field":          {l2 + ", autoAsign: true", `unknown field "spec.autoAsign"`},
		"wrong-type":             {l2 + ", priority: high", "must be of type integer"},
		"reservation":            {l2 + ", reservation: some", `Unsupported value: "some"`},
		"long-name-" + longLabel: {l2, "at most 63 characters"},
	} {
		out, err := w.applyText(poolYAML(name, c.spec))
		if err == nil {
			t.Errorf("%s was accepted: %s", name, out)
			w.RemovePool(name)
			continue
		}
		w.mentions(err.Error()+out, c.message)
	}
	out, err := w.Kubectl(t.Context(), "patch", "addresspool", "lan", "--type=merge", "-p", `{"spec":{"network":{"name":"public"}}}`)
	if err == nil {
		t.Fatalf("the network of a pool was changed: %s", out)
	}
	w.mentions(err.Error()+out, "spec.network cannot be changed: make a new pool")
	out, err = w.Kubectl(t.Context(), "patch", "addresspool", "lan", "--type=merge", "-p", `{"spec":{"reservation":"none"}}`)
	if err == nil {
		t.Fatalf("the reservation of a pool was changed: %s", out)
	}
	w.mentions(err.Error()+out, "spec.reservation cannot be changed: make a new pool")
}

const longLabel = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
