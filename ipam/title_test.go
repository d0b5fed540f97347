package ipam

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTitles(t *testing.T) {
	titles := map[netip.Addr]Title{
		addr("203.0.113.8"):  {Owners: []Owner{{Namespace: "default", Name: "api"}, {Namespace: "default", Name: "web"}}, Share: "Front.1"},
		addr("203.0.113.7"):  {Owners: []Owner{{Namespace: "shop", Name: "a.b-c"}}},
		addr("2001:db8::1"):  {Owners: []Owner{{Namespace: "shop", Name: "x"}}, Inner: true},
		addr("203.0.113.90"): {Owners: []Owner{{Namespace: "shop", Name: "old"}}, Until: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)},
	}
	text, complete := Titles(titles)
	want := "203.0.113.7=shop/a.b-c 203.0.113.8=default/api,default/web;share=Front.1 203.0.113.90=shop/old;until=2026-11-22T10:00:00Z 2001:db8::1=shop/x;inner"
	if text != want || !complete {
		t.Errorf("%q, %v", text, complete)
	}
	if got := ParseTitles(text); !reflect.DeepEqual(got, titles) {
		t.Errorf("%+v", got)
	}
}

func TestTitlesKeepWhatCanBeRead(t *testing.T) {
	got := ParseTitles(`nonsense 10.0.0.1 10.0.0.2=web 10.0.0.3=a/b;later;until=soon 10.0.0.4=a/B,c/d 10.0.0.5%eth0=a/b =a/b "10.0.0.6=a/b"`)
	if len(got) != 2 || !got[addr("10.0.0.3")].Has(Owner{Namespace: "a", Name: "b", UID: "any"}) || len(got[addr("10.0.0.4")].Owners) != 1 {
		t.Errorf("%+v", got)
	}
	text, _ := Titles(map[netip.Addr]Title{addr("10.0.0.1"): {Owners: []Owner{{Namespace: `a"]`, Name: "b"}}, Share: `"`}, addr("10.0.0.2"): {}})
	if text != "" {
		t.Errorf("%q: only what OpenNebula can carry", text)
	}
}

func TestTitlesAreBounded(t *testing.T) {
	titles := map[netip.Addr]Title{}
	for i := range 600 {
		titles[advance(addr("10.0.0.0"), i)] = Title{Owners: []Owner{{Namespace: strings.Repeat("n", 63), Name: fmt.Sprintf("%s-%d", strings.Repeat("s", 58), i)}}}
	}
	text, complete := Titles(titles)
	if complete || len(text) > maxTitles || len(ParseTitles(text)) < 400 {
		t.Errorf("%d bytes, complete: %v", len(text), complete)
	}
}

func FuzzTitles(f *testing.F) {
	f.Add("203.0.113.7=default/web,default/api;share=k;inner;until=2026-11-22T10:00:00Z 10.0.0.1=a/b")
	f.Fuzz(func(t *testing.T, text string) {
		titles := ParseTitles(text)
		again, complete := Titles(titles)
		if !complete {
			t.Skip()
		}
		if got := ParseTitles(again); !reflect.DeepEqual(got, titles) {
			t.Errorf("%q: %+v, written %q, read %+v", text, titles, again, got)
		}
	})
}
