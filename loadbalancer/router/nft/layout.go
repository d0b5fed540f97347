package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// tableName is the name of both tables.
const tableName = "onelb"

// set numbers the sets and maps of one table.
type set int

const (
	frontends set = iota
	ports
	groups
	slots
	addresses
	ranged
	allowed
	snatAlways
	snatNever
	inner
	same
	affine
	affinity
	choices
	members
	limited
	connections
	elsewhere
	routedTo
	passing
	numSets
)

// family is one of the two tables.
type family struct {
	name   string
	family nftables.TableFamily
	// nfproto is the family for the NAT expression.
	nfproto uint32
	address nftables.SetDatatype
	// words is the length of an address in registers of 32 bits.
	words uint32
	// source and destination are the offsets of the addresses in the header.
	source, destination uint32
}

var families = [...]family{
	{
		name: "ip", family: nftables.TableFamilyIPv4, nfproto: unix.NFPROTO_IPV4, address: nftables.TypeIPAddr,
		words: 1, source: 12, destination: 16,
	},
	{
		name: "ip6", family: nftables.TableFamilyIPv6, nfproto: unix.NFPROTO_IPV6, address: nftables.TypeIP6Addr,
		words: 4, source: 8, destination: 24,
	},
}

// familyIndex is the index in families of an address.
func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// definition is what a set is made of.
type definition struct {
	name     string
	key      []nftables.SetDatatype
	data     nftables.SetDatatype // of a map
	isMap    bool
	interval bool
	// dynamic sets are filled by packets: what they hold is the kernel's to know.
	dynamic bool
	timeout bool // of dynamic elements
	comment string
}

// definitions returns the sets of a table, indexed by set.
func (f family) definitions() [numSets]definition {
	frontend := []nftables.SetDatatype{f.address, nftables.TypeInetProto, nftables.TypeInetService}
	client := append(append([]nftables.SetDatatype{}, frontend...), f.address)
	return [numSets]definition{
		frontends:  {name: "frontends", key: frontend, isMap: true, data: nftables.TypeMark, comment: "frontend to group"},
		ports:      {name: "ports", key: frontend, isMap: true, data: nftables.TypeInetService, comment: "frontend to port on the backend"},
		groups:     {name: "groups", key: []nftables.SetDatatype{nftables.TypeMark}, isMap: true, data: nftables.TypeMark, comment: "group to its table of healthy backends"},
		slots:      {name: "slots", key: []nftables.SetDatatype{nftables.TypeMark, nftables.TypeMark}, isMap: true, data: f.address, comment: "table and slot to backend"},
		addresses:  {name: "addresses", key: []nftables.SetDatatype{f.address}, comment: "addresses of all frontends"},
		ranged:     {name: "ranged", key: frontend, comment: "frontends with source ranges"},
		allowed:    {name: "allowed", key: client, interval: true, comment: "frontend and client that may connect"},
		snatAlways: {name: "snat_always", key: frontend, comment: "frontends that hide the client"},
		snatNever:  {name: "snat_never", key: frontend, comment: "frontends that never hide the client"},
		inner:      {name: "inner", key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIFName}, comment: "in and out on one inner interface"},
		affine:     {name: "affine", key: frontend, isMap: true, data: nftables.TypeVerdict, comment: "frontends with session affinity, and the chain of their timeout"},
		affinity: {
			name: "affinity", key: client, isMap: true, data: nftables.TypeMark, dynamic: true, timeout: true,
			comment: "frontend and client to the member they have",
		},
		choices: {name: "choices", key: []nftables.SetDatatype{nftables.TypeMark, nftables.TypeMark}, isMap: true, data: nftables.TypeMark, comment: "table and slot to member"},
		members: {name: "members", key: []nftables.SetDatatype{nftables.TypeMark}, isMap: true, data: f.address, comment: "member that takes connections to its address"},
		limited: {name: "limited", key: frontend, isMap: true, data: nftables.TypeVerdict, comment: "frontends with a limit of connections, and its chain"},
		connections: {
			name: "connections", key: append(append([]nftables.SetDatatype{}, frontend...), nftables.TypeMark), dynamic: true,
			comment: "frontend and limit, with the connections that are open",
		},
		elsewhere: {name: "elsewhere", key: []nftables.SetDatatype{f.address}, comment: "backends that send replies past the router"},
		routedTo:  {name: "routed", key: []nftables.SetDatatype{f.address}, comment: "addresses that are routed to their holders"},
		passing:   {name: "passing", key: frontend, comment: "frontends of these addresses"},
		same:      {name: "same_network", key: []nftables.SetDatatype{f.address, f.address}, interval: true, comment: "client and backend on one network"},
	}
}

// dynamicSize bounds a set that packets fill, which anybody outside can cause. One
// that is full costs nothing but what it is for: a client that is not remembered
// gets the member that its address hashes to.
const dynamicSize = 1 << 18

// kernelSet returns the definition in the library's form.
func (d definition) kernelSet(table *nftables.Table) *nftables.Set {
	s := &nftables.Set{
		Table: table, Name: d.name, KeyType: nftables.MustConcatSetType(d.key...), Concatenation: len(d.key) > 1,
		IsMap: d.isMap, DataType: d.data, Interval: d.interval, Comment: d.comment, Dynamic: d.dynamic, HasTimeout: d.timeout,
	}
	if d.dynamic {
		s.Size = dynamicSize
	}
	return s
}
