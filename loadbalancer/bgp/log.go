package bgp

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Levels of the program's log: what the library says of normal business is for
// those who look for something.
const (
	levelInfo  = 3
	levelDebug = 6
)

// handler passes the library's log on, and picks out of it why a connection could
// not be made, which the library says nowhere else.
type handler struct {
	next    slog.Handler
	watch   *watch
	metrics *Metrics
	peer    netip.Addr // of the logger of a peer
}

func newLogger(logger klog.Logger, w *watch, m *Metrics) *slog.Logger {
	return slog.New(&handler{next: logr.ToSlogHandler(logger.WithName("gobgp")), watch: w, metrics: m})
}

// What the library says, and nowhere but in its log, when a session cannot be
// begun; see connectLoop and sendNotification in its fsm.go.
const (
	failedToConnect  = "failed to connect"
	sentNotification = "sent notification"
)

// unknownPeer is what the library says of a connection from an address that is no
// peer's, which it closes.
const unknownPeer = "Can't find configuration for a new passive connection"

// notRunning is what the library says of an end that was asked for twice, which
// running.stop has to.
const notRunning = "failed to stop BGP server"

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.peer.IsValid() || level >= slog.LevelInfo || h.next.Enabled(ctx, quiet(level))
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if h.peer.IsValid() && (r.Message == failedToConnect || r.Message == sentNotification) {
		h.note(r)
	}
	if r.Message == unknownPeer {
		h.metrics.refusedConnections.Inc()
	}
	r.Level = quiet(r.Level)
	if r.Message == notRunning || !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// note tells why there is no session.
func (h *handler) note(r slog.Record) {
	text, code, subcode := "", int64(0), int64(0)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "Error":
			text = a.Value.String()
		case "Code":
			code = a.Value.Int64()
		case "Subcode":
			subcode = a.Value.Int64()
		}
		return true
	})
	if r.Message == failedToConnect {
		h.watch.failed(h.peer, func(p *watched) cause { return p.unreachable(text) })
		return
	}
	h.watch.failed(h.peer, func(p *watched) cause { return p.refused(uint8(code), uint8(subcode)) })
}

// quiet is the level at which the program logs what the library logs at level.
func quiet(level slog.Level) slog.Level {
	switch {
	case level >= slog.LevelWarn:
		return slog.LevelInfo
	case level >= slog.LevelInfo:
		return -levelInfo
	}
	return -levelDebug
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == "Key" {
			c.peer, _ = netip.ParseAddr(a.Value.String()) //nolint:errcheck // invalid: not the logger of a peer
		}
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.next = h.next.WithGroup(name)
	return &c
}
