package onesim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// The faults. All but Delay and DropAfter happen before the method does anything.
const (
	FaultDelay      FaultKind = "delay"       // wait for Delay, then serve
	FaultHang       FaultKind = "hang"        // never answer; ends when the client goes or the fault is cleared
	FaultDropBefore FaultKind = "drop-before" // close the connection, nothing done
	FaultDropAfter  FaultKind = "drop-after"  // do the work, then close the connection without an answer
	FaultHTTP500    FaultKind = "http-500"    // answer HTTP 500
	FaultMalformed  FaultKind = "malformed"   // answer XML that breaks off
	FaultError      FaultKind = "error"       // answer an OpenNebula error: Code and Message
)

var faultKinds = map[FaultKind]bool{
	FaultDelay: true, FaultHang: true, FaultDropBefore: true, FaultDropAfter: true, FaultHTTP500: true, FaultMalformed: true, FaultError: true,
}

// Fault is injected into calls of a method. Of the faults that apply to a call the first injected is taken.
type Fault struct {
	Method  string        `json:"method"` // "*" or "" for all
	Kind    FaultKind     `json:"kind"`
	After   int           `json:"after,omitempty"`   // calls that pass first
	Count   int           `json:"count,omitempty"`   // calls that fail then; 0 for all
	Delay   time.Duration `json:"-"`                 // of FaultDelay; "delay" in JSON, as "150ms"
	Code    Code          `json:"code,omitempty"`    // of FaultError; CodeInternal when 0
	Message string        `json:"message,omitempty"` // of FaultError, without the "[method] "
}

type faultAlias Fault

type faultJSON struct {
	faultAlias
	Delay string `json:"delay,omitempty"`
}

// MarshalJSON writes the delay as text.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := faultJSON{faultAlias: faultAlias(f)}
	if f.Delay > 0 {
		out.Delay = f.Delay.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes, and no other keys.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var in faultJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	*f = Fault(in.faultAlias)
	if in.Delay == "" {
		return nil
	}
	d, err := time.ParseDuration(in.Delay)
	f.Delay = d
	return err
}

// activeFault counts what is left of a fault; cleared is closed when it is taken away.
type activeFault struct {
	Fault
	passed, hit int
	cleared     chan struct{}
}

type faultTable struct {
	mu   sync.Mutex
	list []*activeFault
}

// Inject adds a fault.
func (s *Sim) Inject(f Fault) error {
	if !faultKinds[f.Kind] {
		return fmt.Errorf("fault kind %q is unknown", f.Kind)
	}
	if f.Method == "" {
		f.Method = "*"
	}
	if _, ok := s.methods[f.Method]; !ok && f.Method != "*" {
		return fmt.Errorf("fault for method %q: %w", f.Method, ErrNotFound)
	}
	if f.Kind == FaultDelay && f.Delay <= 0 {
		return fmt.Errorf("fault %s for %s needs a delay", f.Kind, f.Method)
	}
	if f.After < 0 || f.Count < 0 {
		return fmt.Errorf("fault %s for %s: after and count must not be negative", f.Kind, f.Method)
	}
	if f.Kind == FaultError && f.Code == 0 {
		f.Code = CodeInternal
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = append(s.faults.list, &activeFault{Fault: f, cleared: make(chan struct{})})
	return nil
}

// ClearFaults takes all faults away; calls that hang go on as if nothing had been.
func (s *Sim) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	for _, f := range s.faults.list {
		close(f.cleared)
	}
	s.faults.list = nil
}

// Faults lists the faults that are still to come, with what is left of them.
func (s *Sim) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	var out []Fault
	for _, a := range s.faults.list {
		f := a.Fault
		if f.Count > 0 && a.hit >= f.Count {
			continue
		}
		f.After = max(0, f.After-a.passed)
		if f.Count > 0 {
			f.Count -= a.hit
		}
		out = append(out, f)
	}
	return out
}

// next counts a call and returns the fault that befalls it, if any.
func (t *faultTable) next(method string) *activeFault {
	t.mu.Lock()
	defer t.mu.Unlock()
	var chosen *activeFault
	for _, f := range t.list {
		if f.Method != "*" && f.Method != method || f.Count > 0 && f.hit >= f.Count {
			continue
		}
		if f.passed < f.After {
			f.passed++
			continue
		}
		if chosen == nil {
			f.hit++
			chosen = f
		}
	}
	return chosen
}

// hold waits out a hang; false means that the client went away first.
func (f *activeFault) hold(ctx context.Context) bool {
	select {
	case <-f.cleared:
		return true
	case <-ctx.Done():
		return false
	}
}

// driverKey names the work of a driver on a VM.
type driverKey struct {
	action string
	vm     int
}

// FailDriver makes the next n answers of a VM's driver failures: "deploy" ends in BOOT_FAILURE, after "attachnic" the
// NIC vanishes again, after "detachnic" it stays.
func (s *Sim) FailDriver(action string, vmID, n int) error {
	switch action {
	case "deploy", "attachnic", "detachnic":
	default:
		return fmt.Errorf("driver action %q: %w", action, ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.driverFail[driverKey{action, vmID}] = n
	return nil
}

func (s *Sim) driverFails(action string, vmID int) bool {
	key := driverKey{action, vmID}
	if s.driverFail[key] == 0 {
		return false
	}
	s.driverFail[key]--
	return true
}
