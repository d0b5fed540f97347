package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

// serveDump tells a developer how the program is: its build, its memory, what it
// knows of the cluster, and what each of its goroutines is doing. The answer has
// no credentials.
func (p *Page) serveDump(w http.ResponseWriter, _ *http.Request) {
	s, err := p.snapshot()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	report, err := json.MarshalIndent(s.report, "", "  ")
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	_, _ = fmt.Fprintf(w, "onelb %s, leader %s\n%s, GOMAXPROCS %d, %d goroutines\nheap: %d MiB live, %d MiB from the system, %d collections\n",
		p.o.Version, p.o.Leader, runtime.Version(), runtime.GOMAXPROCS(0), runtime.NumGoroutine(), m.HeapAlloc>>20, m.Sys>>20, m.NumGC)
	if b, ok := debug.ReadBuildInfo(); ok {
		_, _ = fmt.Fprintf(w, "\n== build ==\n%s", b)
	}
	_, _ = fmt.Fprintf(w, "\n== report ==\n%s\n\n== goroutines ==\n", report)
	_ = pprof.Lookup("goroutine").WriteTo(w, 2)
}
