package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// loadEvery is how often the load average is read; the kernel computes it
// every five seconds.
const loadEvery = 5 * time.Second

// load is the machine's load average during a measurement.
type load struct {
	cancel   context.CancelFunc
	done     chan struct{}
	min, max float64
	err      error
}

func watchLoad(ctx context.Context) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, done: make(chan struct{}), min: -1}
	go func() {
		defer close(l.done)
		ticker := time.NewTicker(loadEvery)
		defer ticker.Stop()
		for {
			l.look()
			select {
			case <-ticker.C:
			case <-ctx.Done():
				l.look()
				return
			}
		}
	}()
	return l
}

func (l *load) look() {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		l.err = err
		return
	}
	one, err := strconv.ParseFloat(strings.SplitN(string(data), " ", 2)[0], 64)
	if err != nil {
		l.err = err
		return
	}
	if l.min < 0 {
		l.min = one
	}
	l.min, l.max = min(l.min, one), max(l.max, one)
}

// stop ends the watch and describes the load.
func (l *load) stop() string {
	l.cancel()
	<-l.done
	if l.err != nil {
		return fmt.Sprintf("load average unknown (%v)", l.err)
	}
	return fmt.Sprintf("load average %.1f to %.1f on %d cores", l.min, l.max, runtime.NumCPU())
}
