package announcer

import "github.com/prometheus/client_golang/prometheus"

// Reasons of a takeover, the values of the label "reason".
const (
	reasonNew      = "new"      // nobody had it before
	reasonDead     = "dead"     // its holder is gone
	reasonReleased = "released" // its holder let it go
	reasonHandOver = "handover" // its holder is being relieved
	reasonEven     = "even"     // its holder had many more than this node
	reasonRetaken  = "retaken"  // this node had lost it
	reasonStandIn  = "standin"  // its holder cannot be reached from this smaller side
)

// Metrics of an Engine.
type Metrics struct {
	held       prometheus.Gauge
	peers      prometheus.Gauge
	takeovers  *prometheus.CounterVec
	silence    prometheus.Histogram
	duration   prometheus.Histogram
	adopted    prometheus.Counter
	lost       *prometheus.CounterVec
	announced  *prometheus.CounterVec
	conflicts  prometheus.Counter
	renewFails prometheus.Counter
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "onelb_node_held_addresses", Help: "Addresses this node holds."}),
		peers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "onelb_node_peers", Help: "Live agents of other nodes, without those that are in doubt because they do not answer."}),
		takeovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "onelb_node_takeovers_total",
			Help: "Addresses taken, by reason: new (nobody had it), dead (its holder is gone), released (its holder let it go), retaken (this node had lost it), handover (its holder was relieved: drained, excluded, unwell or without a local endpoint), even (its holder had more addresses than this node), standin (its holder cannot be reached, nor can most of the other nodes; it goes back when they can)."},
			[]string{"reason"}),
		silence: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "onelb_node_takeover_silence_seconds",
			Help:    "How long nobody had answered for an address on the wire when this node took it: since the last answer, or since it began to ask. Not counted: addresses that were handed over.",
			Buckets: []float64{.02, .05, .1, .2, .3, .5, 1, 2, 5}}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "onelb_node_takeover_duration_seconds",
			Help:    "Time from noticing that the holder of an address is gone, or is to be relieved, to having the address. With an agent that is gone while its node answers, it includes the rest of the lifetime of the address.",
			Buckets: []float64{.02, .05, .1, .2, .5, 1, 2, 5, 10, 20}}),
		adopted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "onelb_node_adopted_total", Help: "Addresses found in the kernel at start and kept."}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "onelb_node_drops_total",
			Help: "Addresses let go, by reason: unwanted, other (another node has it), handover (its successor has it), ineligible, link (no carrier), lapsed (not renewed in time), moved (to another interface)."},
			[]string{"reason"}),
		announced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "onelb_node_announcements_total",
			Help: "Announcements sent: gratuitous ARP (a pair of request and reply counts once) and unsolicited neighbour advertisements."},
			[]string{"family"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "onelb_node_conflicts_total", Help: "Claims of hosts without an agent of ours to an address that this node holds or should take."}),
		renewFails: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "onelb_node_renew_failures_total", Help: "Failed renewals of an address in the kernel."}),
	}
	for _, c := range []prometheus.Collector{m.held, m.peers, m.takeovers, m.silence, m.duration, m.adopted, m.lost, m.announced, m.conflicts, m.renewFails} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
