package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/lab"
)

const (
	manyServices = 10_000
	// fewServices is what the calls after a restart are compared with.
	fewServices = 100
	// restartWatch is how long calls are counted after a restart. The library asks
	// for every Service at its start, and the interval of IPAM's comparisons is longer.
	restartWatch = 2 * time.Minute
)

// measureScale is the life of a cluster with 10,000 Services: made at once,
// served, and the cloud-controller-manager started again in the middle of it.
//
// Nodes have machines of their own in life; here kube-proxy and the agents of
// three nodes would only take the cores away from what is measured, so they are
// stopped.
func measureScale(ctx context.Context, b *bench) error {
	return b.burstLab(ctx, lab.Options{Name: "bench-scale"}, func(d *datacenter, network int) error {
		d.manyPorts = true
		if err := d.stopNodes(); err != nil {
			return err
		}
		if _, err := d.burstOf(ctx, network, fewServices, 0); err != nil {
			return err
		}
		few, err := d.restartCalls(ctx)
		if err != nil {
			return err
		}
		r, err := d.burstOf(ctx, network, manyServices, fewServices)
		if err != nil {
			return err
		}
		b.add("burst_10000_lag", r.lag.Seconds())
		b.note("burst_10000_lag", "%s; p95 of create to address %.0f ms; kube-proxy and node agents stopped", r.about(), quantile(r.took, 0.95))
		b.add("ipam_oned_calls_10000", float64(total(r.calls))/float64(len(r.took)))
		b.note("ipam_oned_calls_10000", "chunkSize and reserveAhead %d; until every address was on hold and its owner on record: %v", burstChunk, r.calls)
		memory, err := residentMiB(d.CCM().PID())
		if err != nil {
			return err
		}
		many, err := d.restartCalls(ctx)
		if err != nil {
			return err
		}
		b.add("ccm_restart_10000_oned_calls", float64(total(many)))
		b.note("ccm_restart_10000_oned_calls", "in the first %v: %v; with %d Services it was %d: %v", restartWatch, many, fewServices, total(few), few)
		again, err := residentMiB(d.CCM().PID())
		if err != nil {
			return err
		}
		b.add("ccm_rss_10000", max(memory.now, again.now))
		b.note("ccm_rss_10000", "MiB after the burst %.0f (at most %.0f before), after a restart %.0f (at most %.0f before)",
			memory.now, memory.peak, again.now, again.peak)
		return nil
	})
}

// burstLab runs f in a lab of its own with the pool of the bursts.
func (b *bench) burstLab(ctx context.Context, o lab.Options, f func(d *datacenter, network int) error) (err error) {
	if err := b.closeShared(); err != nil { // two labs at once would share the cores
		return err
	}
	d, err := startLab(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	network, err := d.addBurstPool(ctx)
	if err != nil {
		return err
	}
	if d.pods, err = d.StartWorkload(ctx, workload); err != nil {
		return err
	}
	if err := pause(ctx, settle); err != nil { // the machine has just started a lab
		return err
	}
	return f(d, network)
}

// burstOf creates n Services beside those that are there, and counts all calls
// to OpenNebula until all are on hold and their owners on record.
func (d *datacenter) burstOf(ctx context.Context, network, n, there int) (burstResult, error) {
	before := d.OneSim().Calls()
	r, err := d.createMany(ctx, there, n)
	if err != nil {
		return r, err
	}
	if err := d.waitHeld(ctx, network, there+n); err != nil {
		return r, err
	}
	// For whom the addresses are is written a while after the holds.
	if err := pause(ctx, 2*ipam.DefaultOwnersDelay); err != nil {
		return r, err
	}
	r.calls = difference(d.OneSim().Calls(), before)
	return r, nil
}

// stopNodes ends kube-proxy and agent on every node.
func (d *datacenter) stopNodes() error {
	var errs []error
	for _, n := range d.Nodes() {
		errs = append(errs, n.Proxy().Stop(), n.Agent().Stop())
	}
	return errors.Join(errs...)
}

// restartCalls starts the cloud-controller-manager again and returns the calls
// that it makes to OpenNebula until it has looked at every Service and for a
// while after that.
func (d *datacenter) restartCalls(ctx context.Context) (map[string]int, error) {
	if err := d.CCM().Stop(); err != nil {
		return nil, err
	}
	before := d.OneSim().Calls()
	if err := d.CCM().Start(); err != nil {
		return nil, err
	}
	if err := pause(ctx, restartWatch); err != nil {
		return nil, err
	}
	calls := difference(d.OneSim().Calls(), before)
	if total(calls) == 0 {
		return nil, errors.New("the cloud-controller-manager has asked OpenNebula nothing: it does not work")
	}
	// It serves: one more Service gets its address.
	svc := service("after-restart", burstPool)
	if _, err := d.create(ctx, svc); err != nil {
		return nil, fmt.Errorf("after the restart: %w", err)
	}
	return calls, d.DeleteService(ctx, namespace, svc.Name)
}

// memory is what a process has in RAM, in MiB.
type memory struct{ now, peak float64 }

func residentMiB(pid int) (memory, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	var m memory
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		to := map[string]*float64{"VmRSS": &m.now, "VmHWM": &m.peak}[key]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return m, fmt.Errorf("memory of process %d: %q: %w", pid, line, err)
		}
		*to = kib / 1024
	}
	if m.now == 0 {
		return m, fmt.Errorf("memory of process %d: it has none", pid)
	}
	return m, nil
}
