package agent

import (
	"errors"
	"net/netip"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// LetGo takes off the public addresses that an agent, which need not live any more,
// has put on this machine's interfaces, and has the kernel answer no longer for those
// that are routed, nor route to their holders; it returns how many addresses there were. It is for an
// instance that stops being the master while its agent is dead: the master after it
// and the dead one's kernel would both answer.
func LetGo() (n int, err error) {
	table, err := addr.Open(addr.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	// What fails keeps nothing else here.
	ours, err := table.Ours(func(netip.Addr) bool { return false })
	for _, e := range ours {
		err = errors.Join(err, table.Remove(e.Address, e.Index))
	}
	proxies, listed := table.Proxies()
	err = errors.Join(err, listed)
	for _, e := range proxies {
		err = errors.Join(err, table.RemoveProxy(e))
	}
	routes, listed := holderRoutes()
	err = errors.Join(err, listed)
	for _, r := range routes {
		err = errors.Join(err, unroute(&r))
	}
	return len(ours) + len(proxies), err
}
