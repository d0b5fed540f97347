package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// agent answers as an instance of a router does.
type agent struct {
	wire.UnimplementedRouterServer
}

func (agent) Watch(_ *wire.WatchRequest, stream grpc.ServerStreamingServer[wire.Status]) error {
	if err := stream.Send(&wire.Status{Revision: 1, Master: true, Version: "v7", Problems: []string{"no IPv6 forwarding"}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// TestAskRouters: over a real connection an instance's own words arrive, and one
// whose certificate is of another authority is told from one that is away.
func TestAskRouters(t *testing.T) {
	r := files(t, "lab", pki.Validity{})
	other, err := pki.NewAuthority("other", pki.Validity{})
	must(t, err)
	ca, err := os.ReadFile(r.CAFile)
	must(t, err)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	pair, err := other.Router("edge", pki.Validity{})
	must(t, err)
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own listener
	must(t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})))
	wire.RegisterRouterServer(server, agent{})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Stop(); <-done })
	r.Endpoints = []string{ln.Addr().String()}

	ask := AskRouters(nil, "lab", "id", time.Minute)
	s, err := ask(t.Context(), r)
	if err != nil || s.Instances[0].Reachable || s.Instances[0].Err == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	found := state(s, "router edge")
	if len(found) != 1 || found[0].Check != "router-certificate" || !strings.Contains(found[0].Remedy, "onelbctl router bootstrap") {
		t.Errorf("%+v", found)
	}

	both := append(append([]byte{}, ca...), other.PEM.Cert...)
	must(t, os.WriteFile(r.CAFile, both, 0o600))
	s, err = ask(t.Context(), r)
	if err != nil || !s.Instances[0].Reachable || !s.Instances[0].Master || s.Instances[0].Version != "v7" {
		t.Fatalf("%+v, %v", s, err)
	}
	if found := state(s, "router edge"); len(found) != 1 || found[0].Check != "router-problem" || found[0].Meaning != "no IPv6 forwarding" {
		t.Errorf("%+v", found)
	}
}
