package main

import (
	"strings"
	"testing"
)

// TestReplyElsewhere: one backend has another default gateway, which knows nothing
// of the router's connections. It is found out and sees the router's address
// instead of the client's, until it routes back again.
func TestReplyElsewhere(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	gateway := func(host string) {
		l.run("be1", "ip", "route", "replace", "default", "via", "10.20.0."+host)
		l.run("be1", "ip", "route", "replace", "default", "via", "fd00:20::"+host)
	}
	gateway("250")
	l.start()
	c := l.client()
	l.set(c, front("default/web", vip4, vip6, 8765, 8080))
	says := func() bool {
		return strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), "from 10.20.0.11 (be1), fd00:20::11 (be1): there, clients are hidden")
	}
	clients := map[string][2]string{"203.0.113.100:8765": {"10.20.0.1", "203.0.113.1"}, "[2001:db8:113::100]:8765": {"fd00:20::1", "2001:db8:113::1"}}
	answered := func(hidden bool) {
		t.Helper()
		for address, from := range clients {
			for _, network := range []string{"tcp", "udp"} {
				at := from[1]
				if hidden {
					at = from[0]
				}
				l.eventually("be1 answers over "+network+" "+address+" and sees "+at, func() bool {
					got, err := l.ask("client", network, address)
					return err == nil && got == "be1 "+at
				})
				l.eventually("be2 answers over "+network+" "+address, func() bool {
					got, err := l.ask("client", network, address)
					return err == nil && got == "be2 "+from[1]
				})
			}
		}
	}
	l.eventually("it is told", says)
	answered(true)
	gateway("1")
	l.eventually("it is no longer told", func() bool { return !says() })
	answered(false)
}
