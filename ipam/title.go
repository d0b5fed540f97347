package ipam

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// AttributeOwners is the attribute of a reservation's address range in which
// stands for whom its addresses are, in the form of [Titles]. It outlives the
// store of records: from it, a cluster whose store is lost gives the same
// Services the same addresses.
const AttributeOwners = "ONELB_OWNERS"

// maxTitles bounds the attribute of one range, in bytes: some 500 addresses
// with names of common length. What does not fit is left out, from the end.
const maxTitles = 64 << 10

// Title is for whom one address is, by names: UIDs end with the store.
type Title struct {
	// Owners have no UIDs. Sorted; several share the address.
	Owners []Owner
	// Share is the key with which they share it.
	Share string
	// Inner: it is the address behind another one of the same owner.
	Inner bool
	// Until is for how long the address is kept for its owner, who is gone;
	// zero: the owner has it.
	Until time.Time
}

// Has reports whether the title names the owner. UIDs do not count.
func (t Title) Has(o Owner) bool { return slices.Contains(t.Owners, o.named()) }

// named is the owner without its UID.
func (o Owner) named() Owner { return Owner{Namespace: o.Namespace, Name: o.Name} }

// title is what a record says of its address.
func (r Record) title() Title {
	t := Title{Share: r.Share, Inner: r.Inner}
	for _, o := range r.Owners {
		t.Owners = append(t.Owners, o.named())
	}
	if len(t.Owners) == 0 && r.Kept != (Owner{}) {
		t.Owners, t.Until = []Owner{r.Kept.named()}, r.KeptUntil.UTC().Truncate(time.Second)
	}
	return t
}

// with adds owners that the title lacks.
func (t Title) with(owners []Owner) Title {
	t.Owners = append(slices.Clone(t.Owners), owners...)
	slices.SortFunc(t.Owners, func(a, b Owner) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	t.Owners = slices.Compact(t.Owners)
	return t
}

// without takes the owners of a record off, and who the record is kept for.
func (t Title) without(r Record) Title {
	t.Owners = slices.DeleteFunc(slices.Clone(t.Owners), func(o Owner) bool {
		return o == r.Kept.named() || slices.ContainsFunc(r.Owners, func(x Owner) bool { return x.named() == o })
	})
	return t
}

// Titles writes the titles of addresses as one line that people can read:
//
//	203.0.113.7=default/web 203.0.113.8=default/api,default/admin;share=front 203.0.113.9=default/old;until=2026-11-22T10:00:00Z
//
// An address may be followed by ";share=KEY", ";inner" and ";until=TIME". All
// of it is plain ASCII without quotes, which OpenNebula keeps as it is. Names
// that Kubernetes does not allow are left out. complete is false if something
// did not fit.
func Titles(titles map[netip.Addr]Title) (text string, complete bool) {
	var b strings.Builder
	for _, a := range sortedKeys(titles) {
		entry := titles[a].encode(a)
		if entry == "" {
			continue
		}
		if b.Len()+1+len(entry) > maxTitles {
			return b.String(), false
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(entry)
	}
	return b.String(), true
}

var (
	validName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	validShare = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
)

func (t Title) encode(a netip.Addr) string {
	var names []string
	for _, o := range t.Owners {
		if validName.MatchString(o.Namespace) && validName.MatchString(o.Name) {
			names = append(names, o.Namespace+"/"+o.Name)
		}
	}
	if len(names) == 0 || !a.IsValid() || a.Zone() != "" {
		return ""
	}
	slices.Sort(names)
	entry := a.String() + "=" + strings.Join(slices.Compact(names), ",")
	if validShare.MatchString(t.Share) {
		entry += ";share=" + t.Share
	}
	if t.Inner {
		entry += ";inner"
	}
	if !t.Until.IsZero() {
		entry += ";until=" + t.Until.UTC().Format(time.RFC3339)
	}
	return entry
}

// ParseTitles reads what Titles wrote. What cannot be read, since people may
// have edited it, is left out.
func ParseTitles(text string) map[netip.Addr]Title {
	titles := map[netip.Addr]Title{}
	for entry := range strings.FieldsSeq(text) {
		address, rest, _ := strings.Cut(entry, "=")
		a, err := netip.ParseAddr(address)
		if err != nil || a.Zone() != "" {
			continue
		}
		if t := parseTitle(rest); len(t.Owners) > 0 {
			titles[a.Unmap()] = t
		}
	}
	return titles
}

func parseTitle(text string) Title {
	var t Title
	names, rest, _ := strings.Cut(text, ";")
	for name := range strings.SplitSeq(names, ",") {
		namespace, name, _ := strings.Cut(name, "/")
		if validName.MatchString(namespace) && validName.MatchString(name) {
			t.Owners = append(t.Owners, Owner{Namespace: namespace, Name: name})
		}
	}
	t = t.with(nil)
	for flag := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(flag, "=")
		switch {
		case key == "share" && validShare.MatchString(value):
			t.Share = value
		case key == "inner":
			t.Inner = true
		case key == "until":
			until, err := time.Parse(time.RFC3339, value)
			if err != nil { // somebody's edit: better kept for good than lost
				continue
			}
			t.Until = until.UTC()
		}
	}
	return t
}
