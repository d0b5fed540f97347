package annotation

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name        string
		annotations map[string]string
		lbIP        string
		want        Request
		wantErr     string
	}{
		{name: "nothing", annotations: map[string]string{"example.com/pool": "x"}},
		{name: "pool", annotations: map[string]string{Pool.Name: " public "}, want: Request{Pool: "public"}},
		{name: "both families, sorted", annotations: map[string]string{Address.Name: "2001:DB8::1, 10.0.0.7"},
			want: Request{Addresses: addrs("10.0.0.7", "2001:db8::1")}},
		{name: "loadBalancerIP", lbIP: "10.0.0.7", want: Request{Addresses: addrs("10.0.0.7")}},
		{name: "annotation first", annotations: map[string]string{Address.Name: "10.0.0.8"}, lbIP: "10.0.0.7", want: Request{Addresses: addrs("10.0.0.8")}},
		{name: "mapped", lbIP: "::ffff:10.0.0.7", want: Request{Addresses: addrs("10.0.0.7")}},
		{name: "unknown key", annotations: map[string]string{Prefix + "pol": "x"}, wantErr: "unknown annotation onelb.io/pol"},
		{name: "two of one family", lbIP: "10.0.0.7,10.0.0.8", wantErr: "same family"},
		{name: "retain", annotations: map[string]string{Retain.Name: "36h"}, want: Request{Retain: 36 * time.Hour}},
		{name: "retain a day", annotations: map[string]string{Retain.Name: "1d"}, wantErr: "not a duration from 1s to 8760h"},
		{name: "retain for ever", annotations: map[string]string{Retain.Name: "9000h"}, wantErr: "not a duration"},
		{name: "retain never", annotations: map[string]string{Retain.Name: "0"}, wantErr: "not a duration"},
		{name: "share", annotations: map[string]string{Share.Name: "web.1"}, want: Request{Share: "web.1"}},
		{name: "share with nothing", annotations: map[string]string{Share.Name: ""}, wantErr: "is not a key"},
		{name: "share with a slash", annotations: map[string]string{Share.Name: "a/b"}, wantErr: "is not a key"},
		{name: "connection limit", annotations: map[string]string{ConnectionLimit.Name: "1000"}, want: Request{ConnectionLimit: 1000}},
		{name: "connection limit of none", annotations: map[string]string{ConnectionLimit.Name: "0"}, wantErr: "onelb.io/connection-limit"},
		{name: "connection limit too large", annotations: map[string]string{ConnectionLimit.Name: "1000001"}, wantErr: "from 1 to 1000000"},
		{name: "connection limit in words", annotations: map[string]string{ConnectionLimit.Name: "-1"}, wantErr: "leave it out"},
		{name: "not an address", lbIP: "example.com", wantErr: `spec.loadBalancerIP "example.com"`},
		{name: "zone", lbIP: "fe80::1%eth0", wantErr: "cannot be the address"},
		{name: "multicast", lbIP: "224.0.0.1", wantErr: "cannot be the address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.annotations, tt.lbIP)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("10.0.0.7,2001:db8::1")
	f.Add("::ffff:1.2.3.4")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(map[string]string{Address.Name: s}, "")
		if err != nil {
			return
		}
		if len(r.Addresses) > 2 {
			t.Fatalf("%q gave %d addresses", s, len(r.Addresses))
		}
	})
}

func addrs(s ...string) []netip.Addr {
	out := make([]netip.Addr, len(s))
	for i := range s {
		out[i] = netip.MustParseAddr(s[i])
	}
	return out
}
