package node

import (
	"testing"
	"time"
)

func TestProxyHealth(t *testing.T) {
	type answers struct {
		answer proxyAnswer
		times  int // one each second
	}
	for _, c := range []struct {
		name  string
		heard []answers
		want  bool
	}{
		{"there is none", []answers{{proxyNone, 1000}}, false},
		{"well", []answers{{proxyWell, 1000}}, false},
		{"says that it is unwell", []answers{{proxyWell, 5}, {proxyUnwell, 4}}, true},
		{"from the beginning", []answers{{proxyUnwell, 4}}, true},
		{"a slip", []answers{{proxyWell, 5}, {proxyUnwell, 3}}, false},
		{"a slip each second time", []answers{{proxyUnwell, 1}, {proxyWell, 1}, {proxyUnwell, 1}, {proxyWell, 1}, {proxyUnwell, 1}}, false},
		{"a restart", []answers{{proxyWell, 5}, {proxyNone, 30}, {proxyWell, 1}}, false},
		{"gone", []answers{{proxyWell, 5}, {proxyNone, 31}}, true},
		{"just back", []answers{{proxyWell, 5}, {proxyNone, 31}, {proxyWell, 10}}, true},
		{"back", []answers{{proxyWell, 5}, {proxyNone, 31}, {proxyWell, 11}}, false},
		{"comes and goes", []answers{{proxyUnwell, 5}, {proxyWell, 5}, {proxyUnwell, 1}, {proxyWell, 5}, {proxyNone, 1}, {proxyWell, 5}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p proxyHealth
			now, got := time.Unix(1000, 0), false
			for _, h := range c.heard {
				for range h.times {
					got = p.hear(h.answer, now)
					now = now.Add(time.Second)
				}
			}
			if got != c.want {
				t.Errorf("unwell: %v", got)
			}
		})
	}
}
