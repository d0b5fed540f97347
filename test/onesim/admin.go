package onesim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// AdminHandler is the simulator's own interface, to be served apart from oned's:
//
//	GET    /state               the state, as Snapshot
//	GET    /calls               calls by method;    DELETE /calls   count afresh
//	GET    /faults              faults to come;     DELETE /faults  take all away
//	POST   /faults              inject one: {"method":"one.vn.hold","kind":"drop-after","count":1}
//	POST   /fixture             make objects, YAML or JSON as Fixture
//	POST   /settle              let all drivers finish
//	POST   /vms/{id}/state      the body is the state's name, as of SetVMState
//	POST   /driver-failures     {"action":"attachnic","vm":0,"times":1}
func (s *Sim) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Snapshot()) })
	mux.HandleFunc("GET /calls", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Calls()) })
	mux.HandleFunc("DELETE /calls", func(w http.ResponseWriter, _ *http.Request) { s.ResetCalls(); done(w, nil) })
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, append([]Fault{}, s.Faults()...)) })
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, _ *http.Request) { s.ClearFaults(); done(w, nil) })
	mux.HandleFunc("POST /settle", func(w http.ResponseWriter, _ *http.Request) { s.Settle(); done(w, nil) })
	mux.HandleFunc("POST /faults", s.adminFault)
	mux.HandleFunc("POST /fixture", s.adminFixture)
	mux.HandleFunc("POST /vms/{id}/state", s.adminVMState)
	mux.HandleFunc("POST /driver-failures", s.adminDriver)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, s.opts.MaxRequest)
		mux.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}

// done answers 204, 404 for what does not exist, or 400 with the reason.
func done(w http.ResponseWriter, err error) {
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// decodeStrict refuses unknown keys and trailing text.
func decodeStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if dec.More() {
		return errors.New("body: more than one document")
	}
	return nil
}

func (s *Sim) adminFault(w http.ResponseWriter, r *http.Request) {
	var f Fault
	if err := decodeStrict(r.Body, &f); err != nil {
		done(w, err)
		return
	}
	done(w, s.Inject(f))
}

func (s *Sim) adminFixture(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		done(w, err)
		return
	}
	f, err := DecodeFixture(data)
	if err == nil {
		err = s.Load(f)
	}
	done(w, err)
}

func (s *Sim) adminVMState(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		done(w, err)
		return
	}
	state, err := io.ReadAll(r.Body)
	if err != nil {
		done(w, err)
		return
	}
	done(w, s.SetVMState(id, string(state)))
}

func (s *Sim) adminDriver(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Action string `json:"action"`
		VM     int    `json:"vm"`
		Times  int    `json:"times"`
	}
	if err := decodeStrict(r.Body, &in); err != nil {
		done(w, err)
		return
	}
	done(w, s.FailDriver(in.Action, in.VM, in.Times))
}
