package onesim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// callLog counts calls by method, also those that fail or are hit by a fault; not those of unknown methods.
type callLog struct {
	mu sync.Mutex
	n  map[string]int
}

func (l *callLog) add(method string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = map[string]int{}
	}
	l.n[method]++
}

// Calls is the number of calls so far, by method.
func (s *Sim) Calls() map[string]int {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	out := maps.Clone(s.calls.n)
	if out == nil {
		out = map[string]int{}
	}
	return out
}

// ResetCalls starts counting afresh.
func (s *Sim) ResetCalls() {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.n = nil
}

// emptyRequestPage is what the web server of oned answers a request without a body.
const emptyRequestPage = `<HTML><HEAD><TITLE>Error 400</TITLE></HEAD><BODY><H1>Error 400</H1><P>According to your content-length ` +
	`HTTP header, your request is empty (zero length)</P><p><HR><b><i><a href="http://xmlrpc-c.sourceforge.net">` +
	`ABYSS Web Server for XML-RPC For C/C++</a></i></b> version 1.33.14<br></p></BODY></HTML>`

// errDrop asks for the connection to be closed without an answer.
var errDrop = errors.New("drop the connection")

// Handler serves XML-RPC at /RPC2. Each answer closes its connection, as oned does.
func (s *Sim) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /RPC2", s.serveRPC)
	return mux
}

func (s *Sim) serveRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.opts.MaxRequest))
	if err != nil {
		answer(w, http.StatusOK, encodeFault(&rpcFault{faultLimit, "XML-RPC request too large"}))
		return
	}
	// The deadline was for the request; left alone it would end a call that takes longer to answer.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		panic(http.ErrAbortHandler)
	}
	if len(body) == 0 {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, emptyRequestPage)
		return
	}
	status, out, err := s.respond(r.Context(), body)
	if err != nil {
		panic(http.ErrAbortHandler) // the one way to close a connection without an answer
	}
	answer(w, status, out)
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// respond runs a call with the fault that befalls it. An error means that there is no answer. The client's context
// ends a hang only: what oned has read it executes, whether the client waits or not.
func (s *Sim) respond(client context.Context, body []byte) (int, []byte, error) {
	ctx := lifetime(client)
	rc, err := decodeCall(body)
	if err != nil {
		return http.StatusOK, encode(nil, err), nil
	}
	if s.methods[rc.method] == nil {
		return http.StatusOK, encodeFault(noMethod(rc.method)), nil
	}
	s.calls.add(rc.method)
	f := s.faults.next(rc.method)
	if f == nil {
		return s.run(ctx, rc)
	}
	switch f.Kind {
	case FaultHTTP500:
		return http.StatusInternalServerError, []byte("Internal Server Error"), nil
	case FaultMalformed:
		return http.StatusOK, []byte(arrayHead + "<value><boolean>1</boolean></value>\r\n<value><string>&lt;VNET&gt;"), nil
	case FaultError:
		return http.StatusOK, encodeError(&Error{Code: f.Code, Message: "[" + rc.method + "] " + f.Message, ObjectID: -1}), nil
	case FaultDropBefore:
		return 0, nil, errDrop
	case FaultDropAfter:
		_, _, _ = s.run(ctx, rc)
		return 0, nil, errDrop
	case FaultDelay:
		if err := sleep(ctx, f.Delay); err != nil {
			return 0, nil, err
		}
	case FaultHang:
		if !f.hold(client) {
			return 0, nil, errDrop
		}
	}
	return s.run(ctx, rc)
}

func (s *Sim) run(ctx context.Context, rc rpcCall) (int, []byte, error) {
	value, err := s.execute(ctx, rc)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return 0, nil, err
	}
	return http.StatusOK, encode(value, err), nil
}

func encode(value any, err error) []byte {
	var fault *rpcFault
	var oned *Error
	switch {
	case err == nil:
		return encodeValue(value)
	case errors.As(err, &fault):
		return encodeFault(fault)
	case errors.As(err, &oned):
		return encodeError(oned)
	}
	return encodeError(fail(CodeInternal, "%s", err))
}
