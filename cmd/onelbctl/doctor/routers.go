package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/provider/config"
)

// AskFor is how long the instances of a router may take to answer.
const AskFor = 8 * time.Second

// AskRouters asks with the files of the cloud-config, and changes nothing there.
// identity is the cluster's; within is how long the instances may take. Of stock
// appliances, OpenNebula is asked.
func AskRouters(opennebula appliance.OpenNebula, cluster, identity string, within time.Duration) func(ctx context.Context, r config.Router) (router.State, error) {
	return func(ctx context.Context, r config.Router) (router.State, error) {
		if r.Driver == config.DriverAppliance {
			return appliance.Ask(ctx, appliance.Options{
				Router: r.Name, VirtualRouter: r.VirtualRouter, Cluster: cluster, Identity: identity, Token: math.MaxUint64, OpenNebula: opennebula,
			})
		}
		c, err := router.NewClient(router.ClientOptions{
			Router: r.Name, Endpoints: r.Endpoints, CAFile: r.CAFile, CertFile: r.CertFile, KeyFile: r.KeyFile, Cluster: cluster, Identity: identity,
		})
		if err != nil {
			return router.State{}, err
		}
		// What the client would log is told as findings.
		ctx, cancel := context.WithTimeout(klog.NewContext(ctx, klog.Logger{}), within)
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }() // ends with ctx, and has no other error
		s := settled(ctx, c)
		cancel()
		<-done
		return s, nil
	}
}

// settled waits until each instance has answered or could not be reached.
func settled(ctx context.Context, c *router.Client) router.State {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		s := c.State()
		waiting := false
		for _, i := range s.Instances {
			waiting = waiting || !i.Reachable && i.Err == nil
		}
		if !waiting {
			return s
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s
		}
	}
}

func routers(ctx context.Context, p *Patient) []Finding {
	var out []Finding
	for _, r := range p.Config.Routers {
		about := "router " + r.Name
		s, err := p.Ask(ctx, r)
		if err != nil {
			out = append(out, Finding{Check: "router-unreachable", Severity: Error, About: about, Meaning: err.Error(), Remedy: "correct the router's entry in the cloud-config"})
			continue
		}
		if r.Driver == config.DriverAppliance {
			out = append(out, applianceState(s, about)...)
			continue
		}
		out = append(out, state(s, about)...)
	}
	return out
}

// applianceState: what a stock appliance forwards, only it itself knows.
func applianceState(s router.State, about string) []Finding {
	var out []Finding
	for _, i := range s.Instances {
		instance := about + ", " + i.Endpoint
		if i.Err != nil {
			out = append(out, Finding{
				Check: "appliance-unreachable", Severity: Error, About: instance, Meaning: i.Err.Error() + ". Changes wait; what it forwards goes on",
				Remedy: "see that the machine runs, and that the OpenNebula user has USE on the virtual router and USE and MANAGE on its machines (docs/how-to/stock-appliance.md)",
			})
		}
		for _, text := range i.Problems {
			out = append(out, Finding{Check: "appliance-context", Severity: Error, About: instance, Meaning: text, Remedy: "docs/how-to/stock-appliance.md"})
		}
	}
	return out
}

func state(s router.State, about string) []Finding {
	var out []Finding
	versions := map[string]bool{}
	for _, i := range s.Instances {
		instance := about + ", instance " + i.Endpoint
		if !i.Reachable {
			out = append(out, unreachable(instance, i.Err))
			continue
		}
		versions[i.Version] = true
		for _, text := range i.Problems {
			out = append(out, Finding{Check: "router-problem", Severity: Warning, About: instance, Meaning: text, Remedy: "the log of onelb-router there says more (journalctl -u onelb-router, or /var/log/onelb-router.log)"})
		}
		for _, d := range i.Down {
			out = append(out, Finding{
				Check: "router-backend-down", Severity: Warning, About: instance, Meaning: fmt.Sprintf("node %s does not pass its check at %s port %d: %s. The router sends it nothing", d.Node, d.Address, d.Check.Port, d.Message),
				Remedy: "see that the node runs, that its kube-proxy does (port 10256), and that the router may reach it",
			})
		}
	}
	if meaning, wayOut := s.MasterProblem(); meaning != "" {
		out = append(out, Finding{Check: "router-master", Severity: Error, About: about, Meaning: meaning, Remedy: wayOut})
	}
	if len(versions) > 1 {
		out = append(out, Finding{Check: "router-versions", Severity: Warning, About: about, Meaning: "its instances run different versions of onelb-router", Remedy: "bring them to the same version, one after the other (docs/how-to/router.md)"})
	}
	return out
}

func unreachable(about string, err error) Finding {
	f := Finding{Check: "router-unreachable", Severity: Error, About: about, Meaning: "it does not answer: changes wait until it does. What it forwards goes on", Remedy: "see that onelb-router runs there, and that its port is open for the cloud-controller-manager"}
	if err == nil {
		return f
	}
	f.Meaning = err.Error() + ". Changes wait until it answers; what it forwards goes on"
	if strings.Contains(err.Error(), "tls:") || strings.Contains(err.Error(), "x509:") || strings.Contains(err.Error(), "read certificates") {
		f.Check, f.Remedy = "router-certificate", "the router's certificate needs the name <router>.router.onelb and the authority in caFile, ours the URI onelb://cluster/<cluster> and the authority that the router trusts: onelbctl router bootstrap makes both"
	}
	return f
}

// expirySoon is how long before its end a certificate is told of.
const expirySoon = 30 * 24 * time.Hour

// certificates reads those of the cloud-config.
func certificates(_ context.Context, p *Patient) []Finding {
	var out []Finding
	for _, r := range p.Config.Routers {
		if r.Driver == config.DriverAppliance {
			continue // it has none
		}
		for _, file := range []string{r.CAFile, r.CertFile} {
			about := "router " + r.Name + ", file " + file
			cert, err := readCertificate(file)
			if err != nil {
				out = append(out, Finding{Check: "router-certificate", Severity: Error, About: about, Meaning: err.Error(), Remedy: "onelbctl router bootstrap makes the files; give the cloud-config the paths that the cloud-controller-manager sees"})
				continue
			}
			out = append(out, expiry(cert, about, p.Inventory.Time)...)
			if file == r.CertFile {
				if cluster, err := router.ClusterOf(cert); err != nil || cluster != p.Config.Cluster {
					out = append(out, Finding{
						Check: "router-certificate", Severity: Error, About: about, Meaning: fmt.Sprintf("it is not for cluster %q (URI onelb://cluster/%[1]s): the router refuses it, or shows another cluster's document", p.Config.Cluster),
						Remedy: fmt.Sprintf("onelbctl router bootstrap --router %s --cluster %s --out DIR, with the authority's ca.crt and ca.key in DIR", r.Name, p.Config.Cluster),
					})
				}
			}
		}
	}
	return out
}

func expiry(cert *x509.Certificate, about string, now time.Time) []Finding {
	left := cert.NotAfter.Sub(now)
	if left > expirySoon {
		return nil
	}
	f := Finding{
		Check: "router-certificate-expiry", Severity: Warning, About: about, Meaning: "it expires at " + cert.NotAfter.UTC().Format(time.RFC3339) + ": then nothing can be changed on the router",
		Remedy: "make a new one (onelbctl router bootstrap) and replace the file; it is read again without a restart",
	}
	if left <= 0 {
		f.Severity, f.Meaning = Error, "it has expired at "+cert.NotAfter.UTC().Format(time.RFC3339)+": nothing can be changed on the router, which goes on with what it has"
	}
	return []Finding{f}
}

func readCertificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the cloud-config names it
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it holds no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
