package kit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
)

// ClientOf is where the clients of an address are.
func (w *World) ClientOf(a netip.Addr) *lab.Host {
	if lab.PublicV4.Contains(a) || lab.PublicV6.Contains(a) {
		return w.Internet()
	}
	return w.LAN()
}

// Ask asks once, over a new connection.
func (w *World) Ask(ctx context.Context, a netip.Addr, p uint16, proto corev1.Protocol) (lab.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	if proto == corev1.ProtocolUDP {
		return w.ClientOf(a).UDP(ctx, a, p)
	}
	return w.ClientOf(a).HTTPGet(ctx, a, p)
}

// Answers waits for an answer over each address and port of the Service, and
// fails the test if one is of another workload's pod.
func (w *World) Answers(work lab.Workload, name string, addrs ...netip.Addr) {
	w.T.Helper()
	for _, p := range w.Get(name).Spec.Ports {
		for _, a := range addrs {
			w.answer(work, a, uint16(p.Port), p.Protocol)
		}
	}
}

// AnswerOn waits for an answer at an address and TCP port from the workload.
func (w *World) AnswerOn(work lab.Workload, a netip.Addr, port uint16) {
	w.T.Helper()
	w.answer(work, a, port, corev1.ProtocolTCP)
}

func (w *World) answer(work lab.Workload, a netip.Addr, port uint16, proto corev1.Protocol) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("an answer of %s from %s port %d/%s", work.Name, a, port, proto), func(ctx context.Context) error {
		got, err := w.Ask(ctx, a, port, proto)
		if err == nil && !strings.HasPrefix(got.Pod, work.Name+"-") {
			w.T.Fatalf("%s port %d/%s is answered by pod %s, want one of %s", a, port, proto, got.Pod, work.Name)
		}
		return err
	})
}

// Silent waits until nobody answers at an address and TCP port.
func (w *World) Silent(a netip.Addr, port uint16) {
	w.T.Helper()
	w.Eventually(fmt.Sprintf("silence of %s port %d", a, port), func(ctx context.Context) error {
		if got, err := w.Ask(ctx, a, port, corev1.ProtocolTCP); err == nil {
			return fmt.Errorf("%s answers", got.Pod)
		}
		return nil
	})
}
