package contract

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// world is one front-end with what a test needs in it.
type world struct {
	t        *testing.T
	endpoint string
	sim      *onesim.Sim // nil on a real front-end
	admin    raw
	isAdmin  bool
	prefix   string // of all names
	group    int    // of plain users; 0: not made yet
	users    map[string]user
	networks []ipam.NetworkID // of the administrator, which plain users may use
}

type user struct {
	id      int
	session string
}

// newWorld connects to the front-end of the environment, or starts a simulated
// one for this test alone.
func newWorld(t *testing.T, o onesim.Options) *world {
	t.Helper()
	w := &world{t: t, prefix: "onelb-contract-" + random(), users: map[string]user{}}
	if endpoint, auth := os.Getenv("ONE_XMLRPC"), os.Getenv("ONE_AUTH"); endpoint != "" && auth != "" {
		w.endpoint, w.admin = endpoint, raw{endpoint, authText(t, auth)}
	} else {
		w.startSim(o)
	}
	_, info, err := w.admin.call("one.user.info", -1, false)
	if err != nil {
		t.Fatal(err)
	}
	var me struct {
		Group int `xml:"GID"`
	}
	if err := xml.Unmarshal([]byte(info), &me); err != nil {
		t.Fatal(err)
	}
	w.isAdmin = me.Group == 0
	t.Cleanup(w.cleanUp)
	return w
}

func (w *world) startSim(o onesim.Options) {
	w.t.Helper()
	if o.Delays == (onesim.Delays{}) {
		o.Delays = onesim.MeasuredDelays
	}
	sim, err := onesim.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(stop)
	w.sim, w.endpoint, w.admin = sim, endpoint, raw{endpoint, "oneadmin:opennebula"}
}

// simOnly skips a test on a real front-end.
func (w *world) simOnly(why string) {
	w.t.Helper()
	if w.sim == nil {
		w.t.Skip("not on a real front-end: " + why)
	}
}

// needAdmin skips a test without an administrator's credentials.
func (w *world) needAdmin(why string) {
	w.t.Helper()
	if !w.isAdmin {
		w.t.Skip("needs the credentials of an OpenNebula administrator: " + why)
	}
}

func random() string {
	var b [5]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// authText takes ONE_AUTH as OpenNebula's tools do, a file, or as the text.
func authText(t *testing.T, auth string) string {
	t.Helper()
	b, err := os.ReadFile(auth)
	switch {
	case err == nil:
		return strings.TrimSpace(string(b))
	case strings.Contains(auth, ":"):
		return auth
	}
	t.Fatalf("ONE_AUTH: %v", err)
	return ""
}

type session string

func (s session) Read() (string, error) { return string(s), nil }
func (s session) String() string        { return "the test's credentials" }

// client is the client under test; without a name it has the given credentials,
// else those of a plain user of that name, who is made.
func (w *world) client(name string) *one.Client {
	return w.clientWith(name, one.Options{})
}

func (w *world) clientWith(name string, o one.Options) *one.Client {
	w.t.Helper()
	o.Endpoint, o.Credentials = w.endpoint, session(w.admin.session)
	if name != "" {
		o.Credentials = session(w.user(name).session)
	}
	c, err := one.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// user makes a plain user with the rights that manifests/opennebula/access.sh
// gives: a group that is in no VDC, and USE on the networks of the test.
func (w *world) user(name string) user {
	w.t.Helper()
	if u, ok := w.users[name]; ok {
		return u
	}
	w.needAdmin("it makes a user")
	if w.group == 0 {
		w.group = w.admin.must(w.t, "one.group.allocate", w.prefix)
		w.admin.must(w.t, "one.vdc.delgroup", 0, w.group)
	}
	login, password := w.prefix+"-"+name, random()+random()
	id := w.admin.must(w.t, "one.user.allocate", login, password, "core", ints{w.group})
	w.users[name] = user{id, login + ":" + password}
	for _, n := range w.networks {
		w.mayUse(w.users[name], "NET", int(n))
	}
	return w.users[name]
}

// kinds are OpenNebula's bits for kinds of objects in a rule.
var kinds = map[string]int{"VM": 0x1000000000, "NET": 0x4000000000, "VROUTER": 0x4000000000000}

// Rights in a rule.
const (
	rightUse    = 1
	rightManage = 2
)

// mayUse makes the rule "#user KIND/#id USE".
func (w *world) mayUse(u user, kind string, id int) {
	w.t.Helper()
	w.may(u, kind, id, rightUse)
}

// may makes the rule "#user KIND/#id RIGHT".
func (w *world) may(u user, kind string, id, right int) {
	w.t.Helper()
	const one = 0x100000000
	hex := func(n int) string { return fmt.Sprintf("%x", n) }
	w.admin.must(w.t, "one.acl.addrule", hex(one|u.id), hex(one|kinds[kind]|id), hex(right), hex(one))
}

// network makes a virtual network of the administrator with the given ranges,
// such as TYPE="IP4",IP="10.0.0.1",SIZE="8".
func (w *world) network(name string, ranges ...string) ipam.NetworkID {
	w.t.Helper()
	return w.networkOf(w.admin, w.prefix+"-"+name, ranges...)
}

func (w *world) networkOf(by raw, name string, ranges ...string) ipam.NetworkID {
	w.t.Helper()
	w.needAdmin("it makes a virtual network")
	var template strings.Builder
	fmt.Fprintf(&template, "NAME=%q\nVN_MAD=\"dummy\"\nBRIDGE=\"onelbtest\"\nGATEWAY=\"10.255.0.1\"\nDNS=\"10.255.0.2\"\nSECURITY_GROUPS=\"0\"\n", name)
	for _, r := range ranges {
		template.WriteString("AR=[" + r + "]\n")
	}
	id := ipam.NetworkID(by.must(w.t, "one.vn.allocate", template.String(), -1))
	w.ready(w.client(""), id)
	w.offer(id)
	return id
}

// offer lets plain users, those to come too, take addresses from a network.
func (w *world) offer(id ipam.NetworkID) {
	w.t.Helper()
	w.networks = append(w.networks, id)
	for _, u := range w.users {
		w.mayUse(u, "NET", int(id))
	}
}

// pool4 is a network with one range of IPv4 addresses from 10.255.0.10.
func (w *world) pool4(size int) ipam.NetworkID {
	w.t.Helper()
	return w.network("ip4", fmt.Sprintf(`TYPE="IP4",IP="10.255.0.10",SIZE="%d"`, size))
}

// ready waits until OpenNebula has made a network.
func (w *world) ready(c *one.Client, id ipam.NetworkID) ipam.Network {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		n, err := c.Get(w.t.Context(), id)
		if err == nil && n.Ready {
			return n
		}
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("network %d does not become ready: %s, %v", id, n.State, err)
		}
	}
}

// reserve makes a reservation and waits until it is ready.
func (w *world) reserve(c *one.Client, parent ipam.NetworkID, name string, size int) ipam.Network {
	w.t.Helper()
	id, err := c.Reserve(w.t.Context(), ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-" + name, Into: ipam.NoNetwork, Size: size})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.ready(c, id)
}

// get reads a network that exists.
func (w *world) get(c *one.Client, id ipam.NetworkID) ipam.Network {
	w.t.Helper()
	n, err := c.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// held lists the addresses of a network that are on hold.
func held(n ipam.Network) []netip.Addr {
	var out []netip.Addr
	for _, r := range n.Ranges {
		for _, l := range r.Leases {
			if l.Held && l.IP4.IsValid() {
				out = append(out, l.IP4)
			}
			if l.Held && l.IP6.IsValid() {
				out = append(out, l.IP6)
			}
		}
	}
	return out
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }
