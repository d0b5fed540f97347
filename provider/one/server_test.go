package one

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// request is one call as a fake front-end saw it.
type request struct {
	method string
	params []string // texts of all parameters, the session first
}

// frontEnd is a fake front-end whose answers a test chooses.
type frontEnd struct {
	t      *testing.T
	server *httptest.Server
	answer func(request) string // the HTTP body

	mu   sync.Mutex
	seen []request
}

func newFrontEnd(t *testing.T, answer func(request) string) *frontEnd {
	t.Helper()
	f := &frontEnd{t: t, answer: answer}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, _ = io.WriteString(w, f.answer(f.record(body)))
	}))
	t.Cleanup(f.server.Close)
	return f
}

func (f *frontEnd) record(body []byte) request {
	var x struct {
		Method string `xml:"methodName"`
		Params []struct {
			Value struct {
				String  *string `xml:"string"`
				Int     *string `xml:"int"`
				Boolean *string `xml:"boolean"`
			} `xml:"value"`
		} `xml:"params>param"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		f.t.Errorf("the client sent %q: %v", body, err)
	}
	r := request{method: x.Method}
	for _, p := range x.Params {
		for _, s := range []*string{p.Value.String, p.Value.Int, p.Value.Boolean} {
			if s != nil {
				r.params = append(r.params, *s)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r)
	return r
}

func (f *frontEnd) calls(method string) []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []request
	for _, r := range f.seen {
		if r.method == method {
			out = append(out, r)
		}
	}
	return out
}

func (f *frontEnd) client(o Options) *Client {
	f.t.Helper()
	if o.Endpoint == "" {
		o.Endpoint = f.server.URL + "/RPC2"
	}
	if o.Credentials == nil {
		o.Credentials = &fixedCredentials{text: "k8s:secret123"}
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = time.Minute
	}
	c, err := New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

type fixedCredentials struct {
	mu   sync.Mutex
	text string
	err  error
}

func (c *fixedCredentials) String() string { return "test" }

func (c *fixedCredentials) Read() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text, c.err
}

func (c *fixedCredentials) set(text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text, c.err = text, err
}

const responseHead = `<?xml version="1.0" encoding="UTF-8"?><methodResponse><params><param><value><array><data>`

const responseTail = `</data></array></value></param></params></methodResponse>`

func value(kind, text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text))
	return fmt.Sprintf("<value><%s>%s</%s></value>", kind, b.String(), kind)
}

func okText(text string) string {
	return responseHead + value("boolean", "1") + value("string", text) + value("i4", "0") + responseTail
}

func okID(id int) string {
	return responseHead + value("boolean", "1") + value("i4", fmt.Sprint(id)) + value("i4", "0") + responseTail
}

// failure has five members, the last an i8, as oned sends it.
func failure(code int, text string) string {
	return responseHead + value("boolean", "0") + value("string", text) + value("i4", fmt.Sprint(code)) +
		value("i4", "-1") + value("i8", "-1") + responseTail
}

func fault(code int, text string) string {
	return `<methodResponse><fault><value><struct><member><name>faultCode</name>` + value("i4", fmt.Sprint(code)) +
		`</member><member><name>faultString</name>` + value("string", text) + `</member></struct></value></fault></methodResponse>`
}
