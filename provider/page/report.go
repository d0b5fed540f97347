package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/overview"
	"github.com/onelb/onelb/loadbalancer/path"
)

const (
	// fresh is how old a report may be that somebody gets.
	fresh = 2 * time.Second
	// rest is how many times longer the program does something else than it took
	// to make a report: with 10,000 addresses that is a tenth of a second.
	rest = 9
)

// Report is what the page shows: what onelbctl status does, and what happened. Its
// time is since when it has been so.
type Report struct {
	*overview.Report
	Timeline []Entry `json:"timeline"`
}

// snapshot is one report with what it was made of. Nobody changes it.
type snapshot struct {
	inventory *inventory.Inventory
	report    Report
	body      []byte // the report as JSON
	tag       string
}

// latest keeps the last report, so that many viewers cost what one does.
type latest struct {
	mu sync.Mutex // guards the rest, and lets one at a time make a report
	s  *snapshot
	// next is when the report is too old.
	next time.Time
}

// snapshot is the last report, or a new one if that is too old.
func (p *Page) snapshot() (*snapshot, error) {
	l := &p.latest
	l.mu.Lock()
	defer l.mu.Unlock()
	begin := time.Now()
	if l.s != nil && begin.Before(l.next) {
		return l.s, nil
	}
	s, err := p.read(l.s)
	if err != nil {
		return nil, err
	}
	l.s, l.next = s, time.Now().Add(max(fresh, rest*time.Since(begin)))
	return s, nil
}

// read makes a report. One that says what the last said is the last: its time, and
// so its tag, stays, and browsers need not fetch it again.
func (p *Page) read(last *snapshot) (*snapshot, error) {
	inv := p.o.Inventory()
	s := &snapshot{inventory: inv, report: Report{Report: overview.New(inv), Timeline: p.o.Timeline.Entries()}}
	r := s.report.Report
	r.Manager = &overview.Manager{Leader: p.o.Leader, Leads: true, Version: p.o.Version}
	now := r.Time
	if last != nil {
		r.Time = last.report.Time
	}
	body, err := json.Marshal(s.report)
	if err == nil && (last == nil || !bytes.Equal(body, last.body)) {
		r.Time = now
		body, err = json.Marshal(s.report)
	}
	if err != nil {
		return nil, fmt.Errorf("write the report: %w", err)
	}
	s.body, s.tag = body, tagOf(body)
	return s, nil
}

// serveWays tells the ways of packets to the addresses of ?service=NAMESPACE/NAME.
func (p *Page) serveWays(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query().Get("service")
	namespace, name, ok := strings.Cut(asked, "/")
	if !ok || namespace == "" || name == "" {
		fail(w, http.StatusBadRequest, fmt.Errorf("service=%s: name it as NAMESPACE/NAME", asked))
		return
	}
	s, err := p.snapshot()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	svc := s.inventory.Service(namespace, name)
	if svc == nil {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no Service %s of type LoadBalancer", asked))
		return
	}
	respond(w, http.StatusOK, struct {
		Service string        `json:"service"`
		Ways    []path.Way    `json:"ways"`
		Pending []path.Reason `json:"pending,omitempty"`
	}{asked, path.Ways(s.inventory, svc), pending(s.report.Pending, asked)})
}

func pending(all []overview.Pending, service string) []path.Reason {
	for _, p := range all {
		if p.Service == service {
			return p.Reasons
		}
	}
	return nil
}
