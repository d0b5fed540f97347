package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Path is where the page is. What it needs is below it, so that one rule of RBAC
// (nonResourceURLs /onelb/*) lets somebody see it.
const Path = "/onelb/"

// DumpPath is what a developer asks for, and has a rule of its own.
const DumpPath = "/debug/dump"

// Annotation of the Lease onelb-fencing is the URL of the page, and
// CertificateAnnotation the SHA-256 of the certificate there, in hex: the
// certificate is often self-signed, and so whoever may read the Lease knows it.
const (
	Annotation            = "onelb.io/page"
	CertificateAnnotation = "onelb.io/page-certificate"
)

//go:embed assets
var assets embed.FS

// Options are what the page shows.
type Options struct {
	// Inventory reads what is known now. It is called by one at a time.
	Inventory func() *inventory.Inventory
	// Leader and Version are those of this program.
	Leader, Version string
	Timeline        *Timeline
}

// Page serves the page.
type Page struct {
	o      Options
	mux    *http.ServeMux
	latest latest
}

// New makes the page. It reads nothing before somebody asks.
func New(o Options) (*Page, error) {
	if o.Inventory == nil || o.Timeline == nil {
		return nil, errors.New("page: Inventory and Timeline are required")
	}
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	p := &Page{o: o, mux: http.NewServeMux()}
	p.mux.Handle("GET "+Path, http.StripPrefix(Path, http.FileServerFS(files)))
	p.mux.HandleFunc("GET "+Path+"data/report.json", p.serveReport)
	p.mux.HandleFunc("GET "+Path+"data/ways.json", p.serveWays)
	p.mux.HandleFunc("GET "+DumpPath, p.serveDump)
	p.mux.Handle("GET /{$}", http.RedirectHandler(Path, http.StatusFound))
	return p, nil
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	p.mux.ServeHTTP(w, r)
}

// headers keep a browser to what is served here: no script, style or picture from
// elsewhere or from a text of the cluster, and no frame around the page.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cache-Control":                "no-cache, private",
}

func (p *Page) serveReport(w http.ResponseWriter, r *http.Request) {
	s, err := p.snapshot()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", s.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.body))
}

// tagOf is an entity tag for a text.
func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// fail answers with an error, as JSON like everything else here.
func fail(w http.ResponseWriter, code int, err error) {
	respond(w, code, struct {
		Error string `json:"error"`
	}{err.Error()})
}

// respond answers with a value. If that cannot be written, nobody listens any more.
func respond(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
