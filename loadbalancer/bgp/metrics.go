package bgp

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of a Speaker.
type Metrics struct {
	up, announced, received, bfd *prometheus.GaugeVec
	breaks                       *prometheus.CounterVec
	refusedConnections           prometheus.Counter
	refusedPackets               prometheus.Counter
	broken                       map[string]int // as counted in breaks; belongs to the Speaker
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"peer"})
	}
	m := &Metrics{
		up:        gauge("onelb_node_bgp_session_up", "1 while this node has a BGP session with the peer, else 0."),
		announced: gauge("onelb_node_bgp_announced_routes", "Routes that this node announces to the peer."),
		received:  gauge("onelb_node_bgp_received_routes", "Routes that the peer has sent to this node. None is accepted."),
		bfd:       gauge("onelb_node_bgp_bfd_up", "1 while the BFD session with the peer is up, else 0; only peers with BFD."),
		breaks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "onelb_node_bgp_session_breaks_total", Help: "How often the BGP session with the peer broke."}, []string{"peer"}),
		refusedConnections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "onelb_node_bgp_refused_connections_total", Help: "Connections to the BGP port from addresses that are no peer's. They were closed."}),
		refusedPackets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "onelb_node_bgp_bfd_refused_packets_total", Help: "Packets to the BFD port that were ignored: malformed, of an unknown sender or session, or come over a router."}),
		broken: map[string]int{},
	}
	for _, c := range []prometheus.Collector{m.up, m.announced, m.received, m.bfd, m.breaks, m.refusedConnections, m.refusedPackets} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Metrics) observe(sessions []Session) {
	for _, v := range []*prometheus.GaugeVec{m.up, m.announced, m.received, m.bfd} {
		v.Reset()
	}
	for peer := range m.broken {
		if !slices.ContainsFunc(sessions, func(s Session) bool { return s.Peer == peer }) {
			delete(m.broken, peer)
			m.breaks.DeleteLabelValues(peer)
		}
	}
	for _, s := range sessions {
		m.up.WithLabelValues(s.Peer).Set(number(s.Up()))
		m.announced.WithLabelValues(s.Peer).Set(float64(s.Announced))
		m.received.WithLabelValues(s.Peer).Set(float64(s.Received))
		if s.BFD != "" {
			m.bfd.WithLabelValues(s.Peer).Set(number(s.BFD == "Up"))
		}
		m.breaks.WithLabelValues(s.Peer).Add(float64(max(0, s.Breaks-m.broken[s.Peer])))
		m.broken[s.Peer] = s.Breaks
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
