package contract

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"
)

// cleanUp removes what the test has made on a real front-end; a simulated one
// goes away as it is.
func (w *world) cleanUp() {
	if w.sim != nil || !w.isAdmin {
		return
	}
	for _, id := range w.named("one.vmpool.info", "VM", -2, -1, -1, -1) {
		_, _, err := w.admin.call("one.vm.action", "terminate-hard", id)
		w.complain(err)
	}
	// Reservations have higher IDs than their parents.
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		nets := w.named("one.vnpool.info", "VNET", -2, -1, -1)
		slices.Reverse(nets)
		if len(nets) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.t.Errorf("networks %v are left over", nets)
			break
		}
		for _, id := range nets {
			w.releaseAll(id)
			_, _, _ = w.admin.call("one.vn.delete", id) // again until none is left
		}
	}
	for _, u := range w.users {
		_, _, err := w.admin.call("one.user.delete", u.id) // and the rules about it
		w.complain(err)
	}
	if w.group > 0 {
		_, _, err := w.admin.call("one.group.delete", w.group)
		w.complain(err)
	}
}

func (w *world) complain(err error) {
	if err != nil {
		w.t.Errorf("clean up: %v", err)
	}
}

// named lists the IDs of the objects whose name has our prefix, sorted.
func (w *world) named(method, element string, args ...any) []int {
	_, text, err := w.admin.call(method, args...)
	w.complain(err)
	var x struct {
		Objects []struct {
			XMLName xml.Name
			ID      int    `xml:"ID"`
			Name    string `xml:"NAME"`
		} `xml:",any"`
	}
	w.complain(xml.Unmarshal([]byte(text), &x))
	var out []int
	for _, o := range x.Objects {
		if o.XMLName.Local == element && strings.HasPrefix(o.Name, w.prefix) {
			out = append(out, o.ID)
		}
	}
	slices.Sort(out)
	return out
}

func (w *world) releaseAll(network int) {
	_, text, err := w.admin.call("one.vn.info", network, false)
	if err != nil {
		return // just deleted
	}
	var x struct {
		Leases []struct {
			MAC string `xml:"MAC"`
			VM  string `xml:"VM"`
		} `xml:"AR_POOL>AR>LEASES>LEASE"`
	}
	w.complain(xml.Unmarshal([]byte(text), &x))
	for _, l := range x.Leases {
		if l.VM == "-1" {
			_, _, err := w.admin.call("one.vn.release", network, fmt.Sprintf("LEASES=[MAC=%q]", l.MAC))
			w.complain(err)
		}
	}
}
