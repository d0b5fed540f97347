package arpfilter

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab/ns"
)

const nsPrefix = "onelb-arpf-"

func TestMain(m *testing.M) {
	left, _ := ns.Named(nsPrefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	os.Exit(m.Run())
}

func namespace(t *testing.T, name string) *ns.Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	n, err := ns.New(nsPrefix + name)
	must(t, err)
	t.Cleanup(func() { must(t, n.Delete()) })
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing is the table as nft shows it, without what changes by itself.
func listing(t *testing.T, n *ns.Namespace) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", n.Name(), "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if before, _, found := strings.Cut(line, "expires"); found {
			line = before + "}"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTable(t *testing.T) {
	n := namespace(t, "table")
	f := New(Options{Enter: n.Do, Failed: func(err error) {
		if err != nil {
			t.Error(err)
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1")
	f.Set(State{Known: []netip.Addr{b, a, c}, Held: []Place{{a, 1}, {c, 1}}})
	rule := "arp operation @alive arp daddr ip @known iif . arp daddr ip != @held drop"
	has := func(parts ...string) func() bool {
		return func() bool {
			now := listing(t, n)
			for _, p := range parts {
				if !strings.Contains(now, p) {
					return false
				}
			}
			return true
		}
	}
	eventually(t, "the table is there", has(rule, "elements = { 10.0.0.1, 10.0.0.2 }", `elements = { "lo" . 10.0.0.1 }`, "elements = { request timeout 10m }"))
	f.Set(State{Known: []netip.Addr{b}, Held: []Place{{b, 1}}})
	eventually(t, "the change is written", has(rule, "elements = { 10.0.0.2 }", `elements = { "lo" . 10.0.0.2 }`))

	out, err := exec.CommandContext(t.Context(), "ip", "netns", "exec", n.Name(), "nft", "flush", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "a removed table is made again", has(rule, "elements = { 10.0.0.2 }"))
	before := listing(t, n)
	cancel()
	must(t, <-done)
	if after := listing(t, n); after != before || after == "" {
		t.Errorf("the end changed the table: %s", after)
	}
	// The next run takes over what is there.
	again := New(Options{Enter: n.Do})
	must(t, again.write(encode(State{Known: []netip.Addr{a}}), false))
	if !has(rule, "elements = { 10.0.0.1 }")() || strings.Contains(listing(t, n), "10.0.0.2") {
		t.Errorf("after a restart: %s", listing(t, n))
	}
}

// Where the host has the addresses elsewhere, it answers for held ones only while
// somebody says that he lives; not so where the address itself lapses.
func TestHeldLapses(t *testing.T) {
	n := namespace(t, "lapses")
	var hung atomic.Bool
	f := New(Options{Enter: n.Do, Release: time.Second, Alive: func() bool { return !hung.Load() }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	a := netip.MustParseAddr("10.0.0.1")
	state := State{Known: []netip.Addr{a}, Held: []Place{{a, 1}}, Elsewhere: true}
	f.Set(state)
	answers := func(want bool, element string) func() bool {
		return func() bool {
			text := listing(t, n)
			return strings.Contains(text, "arp operation != @renewed drop") && strings.Contains(text, "elements = { request"+element+" }") == want
		}
	}
	eventually(t, "it may answer", answers(true, " timeout 1s"))
	hung.Store(true)
	eventually(t, "a hung agent's places lapse", answers(false, " timeout 1s"))
	hung.Store(false)
	eventually(t, "and are back with it", answers(true, " timeout 1s"))
	state.Elsewhere = false
	f.Set(state)
	eventually(t, "without kube-proxy's interface they stay", answers(true, ""))
	state.Elsewhere = true
	f.Set(state)
	eventually(t, "they have to be renewed again", answers(true, " timeout 1s"))
	cancel()
	must(t, <-done)
	eventually(t, "the places of an agent that is gone lapse", answers(false, " timeout 1s"))
}

// An agent that ends without addresses leaves no table, not even that of the one
// before it; one that ends before it knows leaves it.
func TestNothingIsLeft(t *testing.T) {
	n := namespace(t, "left")
	must(t, New(Options{Enter: n.Do}).write(encode(State{Known: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}), false))
	for _, knows := range []bool{false, true} {
		f := New(Options{Enter: n.Do, Failed: func(err error) {
			if err != nil {
				t.Error(err)
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		if knows {
			f.Set(State{})
			eventually(t, "the addresses are gone", func() bool { return !strings.Contains(listing(t, n), "10.0.0.1") })
		}
		cancel()
		must(t, <-done)
		if got := listing(t, n); knows != (got == "") {
			t.Errorf("the agent knows the state: %v; it left: %s", knows, got)
		}
	}
}

// What was handed over last is written before the end, however soon that comes: else a
// node with kube-proxy in IPVS mode would go on to answer, and nobody would stop it.
func TestLastWordIsWritten(t *testing.T) {
	n := namespace(t, "last")
	f := New(Options{Enter: n.Do})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for range 2 {
		f.Set(State{Known: []netip.Addr{a}, Elsewhere: true})
		must(t, f.Run(ctx))
		if got := listing(t, n); !strings.Contains(got, "elements = { 10.0.0.1 }") {
			t.Errorf("the first: %s", got)
		}
		f.Set(State{Known: []netip.Addr{a, b}, Held: []Place{{b, 1}}, Elsewhere: true})
		must(t, f.Run(ctx))
		if got := listing(t, n); !strings.Contains(got, "elements = { 10.0.0.1, 10.0.0.2 }") || !strings.Contains(got, `elements = { "lo" . 10.0.0.2 }`) {
			t.Errorf("the next: %s", got)
		}
	}
}

func TestFailureIsTold(t *testing.T) {
	told := make(chan error, 1)
	f := New(Options{Enter: func(func() error) error { return os.ErrPermission }, Failed: func(err error) { told <- err }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.Set(State{})
	if err := <-told; !errors.Is(err, os.ErrPermission) {
		t.Errorf("told %v", err)
	}
	cancel()
	must(t, <-done)
}
