package onesim

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestDefaultFixture(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(DefaultFixture()); err != nil {
		t.Fatal(err)
	}
	v, err := s.VM(0)
	if err != nil || v.Name != "node-1" || v.Owner != "k8s" || v.State != "RUNNING" {
		t.Fatalf("%+v %v", v, err)
	}
	if v.NICs[0].IP != netip.MustParseAddr("172.20.0.11") || v.NICs[0].IP6 != netip.MustParseAddr("fd00:172:20::11") {
		t.Errorf("node-1's NIC: %+v", v.NICs[0])
	}
	if r := s.Snapshot().Routers; len(r) != 1 || len(r[0].VMs) != 2 || r[0].NICs[0].IP != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("routers %+v", r)
	}
	id := must(t, s, asK8s, "one.vn.reserve", 1, `SIZE=4 NAME=lb`).(int)
	must(t, s, asK8s, "one.vn.hold", id, `LEASES=[IP="203.0.113.13"]`)
	if got := s.Holds(id); len(got) != 1 || got[0] != netip.MustParseAddr("203.0.113.13") {
		t.Errorf("holds %v", got)
	}
}

func TestLoadErrors(t *testing.T) {
	net := NetworkFixture{Name: "n", Template: `AR=[TYPE="IP4",IP="10.0.0.1",SIZE="2"]`}
	for _, tc := range []struct {
		name string
		f    Fixture
		want string
	}{
		{"unknown network", Fixture{VMs: []VMFixture{{Name: "v", NICs: []NICFixture{{Network: "x"}}}}}, `network "x"`},
		{"unknown owner", Fixture{Networks: []NetworkFixture{{Name: "n", Owner: "x", Template: net.Template}}}, `user "x"`},
		{"no host", Fixture{VMs: []VMFixture{{Name: "v"}}}, "host 0"},
		{"unknown host", Fixture{VMs: []VMFixture{{Name: "v", Host: "x"}}}, `host "x"`},
		{"bad state", Fixture{Hosts: []string{"h"}, VMs: []VMFixture{{Name: "v", State: "ASLEEP"}}}, `state "ASLEEP"`},
		{"bad range", Fixture{Networks: []NetworkFixture{{Name: "n", Template: `AR=[TYPE="IP4",SIZE="2"]`}}}, "Wrong or empty IP"},
		{"bad syntax", Fixture{Networks: []NetworkFixture{{Name: "n", Template: `AR=[`}}}, "Parse error"},
		{"same user", Fixture{Users: []UserFixture{{Name: "oneadmin"}}}, `user "oneadmin" exists`},
		{"bad right", Fixture{Rules: []RuleFixture{{User: "oneadmin", Rights: []string{"FLY"}}}}, `right "FLY"`},
		{"address taken", Fixture{Hosts: []string{"h"}, Networks: []NetworkFixture{net}, VMs: []VMFixture{
			{Name: "a", NICs: []NICFixture{{Network: "n", IP: netip.MustParseAddr("10.0.0.1")}}},
			{Name: "b", NICs: []NICFixture{{Network: "n", IP: netip.MustParseAddr("10.0.0.1")}}},
		}}, `VM "b"`},
		{"no pair", Fixture{Hosts: []string{"h"}, Networks: []NetworkFixture{net}, VMs: []VMFixture{
			{Name: "a", NICs: []NICFixture{{Network: "n", IP: netip.MustParseAddr("10.0.0.1"), IP6: netip.MustParseAddr("fd00::1")}}},
		}}, "not a pair"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := New(Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Load(tc.f); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
	if _, err := DecodeFixture([]byte("userz: []")); err == nil {
		t.Error("an unknown key was accepted")
	}
}

func TestAdmin(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.AdminHandler())
	defer srv.Close()
	send := func(method, path, body string, want int) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		if resp.StatusCode != want {
			t.Errorf("%s %s: got %s %s, want %d", method, path, resp.Status, b.String(), want)
		}
		return b.Bytes()
	}
	send("POST", "/fixture", string(defaultFixture), http.StatusNoContent)
	send("POST", "/fixture", "vms: [{name: x, nics: [{network: nosuch}]}]", http.StatusNotFound)
	send("POST", "/fixture", "nonsense: 1", http.StatusBadRequest)
	send("POST", "/faults", `{"method":"one.vn.hold","kind":"delay","delay":"1ms","count":2}`, http.StatusNoContent)
	send("POST", "/faults", `{"kind":"delay","nonsense":1}`, http.StatusBadRequest)
	var faults []Fault
	if err := json.Unmarshal(send("GET", "/faults", "", http.StatusOK), &faults); err != nil || len(faults) != 1 || faults[0].Count != 2 {
		t.Errorf("faults %+v %v", faults, err)
	}
	send("DELETE", "/faults", "", http.StatusNoContent)
	if len(s.Faults()) != 0 {
		t.Error("faults are left")
	}
	send("POST", "/vms/0/state", "POWEROFF", http.StatusNoContent)
	send("POST", "/vms/77/state", "POWEROFF", http.StatusNotFound)
	send("POST", "/driver-failures", `{"action":"attachnic","vm":0,"times":1}`, http.StatusNoContent)
	send("POST", "/settle", "", http.StatusNoContent)
	send("GET", "/calls", "", http.StatusOK)
	send("DELETE", "/calls", "", http.StatusNoContent)
	var state Snapshot
	if err := json.Unmarshal(send("GET", "/state", "", http.StatusOK), &state); err != nil {
		t.Fatal(err)
	}
	if len(state.VMs) != 5 || state.VMs[0].State != "POWEROFF" {
		t.Errorf("VMs %+v", state.VMs)
	}
}
