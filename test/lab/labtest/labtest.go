// Package labtest shares one lab among the tests of a package: the lab takes
// seconds to start and tests take milliseconds.
//
//	func TestMain(m *testing.M) { os.Exit(labtest.Run(m, lab.Options{Name: "e2e"})) }
//	func TestSomething(t *testing.T) { l := labtest.Shared(t); … }
//
// The lab starts with the first test that asks for it and ends after the last.
// A lab that could not start fails every test that asks for it.
package labtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// SkipVariable is the variable that, set to 1, turns the failure for want of root into a skip.
const SkipVariable = "ONELB_SKIP_ROOT"

// startTimeout leaves time for the first build of Kubernetes.
const startTimeout = 40 * time.Minute

var shared struct {
	sync.Mutex
	options lab.Options
	lab     *lab.Lab
	err     error
}

// RequireRoot fails the test unless it runs as root.
func RequireRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv(SkipVariable) == "1" {
		tb.Skip("needs root, and " + SkipVariable + "=1")
	}
	tb.Fatal("needs root for network namespaces: run it as root, or set " + SkipVariable + "=1 to skip such tests")
}

// Run runs the package's tests and ends the lab that they shared. It returns the
// exit code.
func Run(m *testing.M, o lab.Options) int {
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	shared.options = o
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.lab == nil {
		return code
	}
	races, err := shared.lab.Races()
	if err != nil || len(races) > 0 {
		fmt.Fprintln(os.Stderr, "data races, or logs that cannot be read:", races, err)
		code = max(code, 1)
	}
	if err := shared.lab.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "close the lab:", err)
		return max(code, 1)
	}
	return code
}

// Shared is the package's lab, started by the first call.
func Shared(tb testing.TB) *lab.Lab {
	tb.Helper()
	RequireRoot(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.lab == nil && shared.err == nil {
		shared.lab, shared.err = start(shared.options)
	}
	if shared.err != nil {
		tb.Fatalf("the lab does not start: %v", shared.err)
	}
	return shared.lab
}

// Start starts a lab of the test's own and ends it with the test.
func Start(tb testing.TB, o lab.Options) *lab.Lab {
	tb.Helper()
	RequireRoot(tb)
	l, err := start(o)
	if err != nil {
		tb.Fatalf("the lab does not start: %v", err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Errorf("close the lab: %v", err)
		}
	})
	return l
}

func start(o lab.Options) (*lab.Lab, error) {
	l, err := lab.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := l.Start(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Program is a program with a log.
type Program interface {
	Name() string
	Tail(lines int) string
}

// Logs shows the last lines of the programs' logs if the test fails.
func Logs(tb testing.TB, programs ...Program) {
	tb.Helper()
	tb.Cleanup(func() {
		if !tb.Failed() {
			return
		}
		for _, p := range programs {
			tb.Logf("--- %s ---\n%s", p.Name(), p.Tail(40))
		}
	})
}
