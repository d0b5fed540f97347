package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxCluster leaves room for "-<pool>" in a reservation's name and for a suffix.
const maxCluster = 40

// validate looks at all values. A key that has a problem already gets no second.
func (p *parser) validate(c *Config) {
	p.check("endpoint", checkEndpoint(c.Endpoint))
	p.check("credentials", checkCredentials(c.Credentials))
	p.check("cluster", checkName(c.Cluster, maxCluster))
	if c.RequestTimeout <= 0 {
		p.check("requestTimeout", "must be more than 0")
	}
	p.networks(c.Instances)
	if len(validation.IsValidLabelValue(c.Instances.Region)) > 0 {
		p.check("instances.region", fmt.Sprintf("%.80q is no valid value of a label: at most 63 letters, digits, '-', '_' and '.'", c.Instances.Region))
	}
	names, appliances := map[string]bool{}, map[int]string{}
	for i, r := range c.Routers {
		key := fmt.Sprintf("routers[%d]", i)
		p.check(key+".name", checkName(r.Name, validation.DNS1123LabelMaxLength))
		if r.Name != "" && names[r.Name] {
			p.check(key+".name", fmt.Sprintf("%q is the name of another router too", r.Name))
		}
		names[r.Name] = true
		p.router(key, r)
		if r.Driver != DriverAppliance || r.VirtualRouter < 0 {
			continue
		}
		if other, taken := appliances[r.VirtualRouter]; taken {
			p.check(key+".virtualRouter", fmt.Sprintf("is that of router %q too", other))
		}
		appliances[r.VirtualRouter] = r.Name
	}
}

// check reports a problem of a key at its line, or at that of what it is in.
func (p *parser) check(key, text string) {
	if text == "" || slices.ContainsFunc(p.problems, func(x Problem) bool { return x.Key == key }) {
		return
	}
	line, at := 0, key
	for at != "" && line == 0 {
		line = p.lines[at]
		at = parentKey(at)
	}
	p.problem(line, key, text)
}

var lastPart = regexp.MustCompile(`(\.[^.\[]*|\[[0-9]+\])$`)

// parentKey is routers[0] for routers[0].name, routers for that, "" for that.
func parentKey(key string) string {
	if i := lastPart.FindStringIndex(key); i != nil {
		return key[:i[0]]
	}
	return ""
}

func (p *parser) networks(i Instances) {
	if i.Region != "" && p.lines["instances.regionFrom"] > 0 {
		p.check("instances.regionFrom", "cannot be given beside region")
	}
	for key, list := range map[string][]string{"internalNetworks": i.InternalNetworks, "externalNetworks": i.ExternalNetworks} {
		for n, name := range list {
			if slices.Index(list, name) < n {
				p.check(fmt.Sprintf("instances.%s[%d]", key, n), fmt.Sprintf("%q is listed twice", name))
			}
			if prefix, err := netip.ParsePrefix(name); err == nil && prefix != prefix.Masked() {
				p.check(fmt.Sprintf("instances.%s[%d]", key, n), fmt.Sprintf("%q has bits beyond its length: %s is meant", name, prefix.Masked()))
			}
		}
	}
	for n, name := range i.ExternalNetworks {
		if name != "" && slices.Contains(i.InternalNetworks, name) {
			p.check(fmt.Sprintf("instances.externalNetworks[%d]", n), fmt.Sprintf("%q is one of internalNetworks too", name))
		}
	}
}

func (p *parser) router(key string, r Router) {
	switch r.Driver {
	case DriverAgent:
		if p.lines[key+".virtualRouter"] > 0 {
			p.check(key+".virtualRouter", "is for driver: appliance only")
		}
		p.agent(key, r)
	case DriverAppliance:
		p.appliance(key, r)
	default:
		p.check(key+".driver", fmt.Sprintf("%.80q is none of %s, %s", string(r.Driver), DriverAgent, DriverAppliance))
	}
}

// appliance: a router on which no agent runs.
func (p *parser) appliance(key string, r Router) {
	if r.VirtualRouter < 0 {
		p.check(key+".virtualRouter", "is required with driver: appliance: OpenNebula's ID of the virtual router, as onevrouter list shows it")
	}
	for _, name := range []string{"endpoints", "caFile", "certFile", "keyFile", "podRoutes"} {
		if p.lines[key+"."+name] > 0 {
			p.check(key+"."+name, "is for driver: agent only: no agent runs on a stock appliance")
		}
	}
}

func (p *parser) agent(key string, r Router) {
	if len(r.Endpoints) == 0 {
		p.check(key+".endpoints", "is required: host:port of each instance")
	}
	for i, e := range r.Endpoints {
		at := fmt.Sprintf("%s.endpoints[%d]", key, i)
		p.check(at, checkHostPort(e))
		if slices.Index(r.Endpoints, e) < i {
			p.check(at, fmt.Sprintf("%q is listed twice", e))
		}
	}
	for _, f := range []struct{ name, value string }{{"caFile", r.CAFile}, {"certFile", r.CertFile}, {"keyFile", r.KeyFile}} {
		if f.value == "" {
			p.check(key+"."+f.name, "is required; onelbctl router bootstrap makes the files")
		}
	}
}

func checkEndpoint(s string) string {
	const example = "such as http://one.example.org:2633/RPC2"
	if s == "" {
		return "is required: the URL of OpenNebula's XML-RPC API, " + example
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "is not a URL " + example // without s, which may hold a password
	case u.User != nil:
		return "must not contain user and password: they belong into the credentials"
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "must be a URL " + example
	}
	return ""
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func checkCredentials(c Credentials) string {
	switch {
	case c.File == "" && c.Env == "":
		return "is required: exactly one of file and env"
	case c.File != "" && c.Env != "":
		return "has both file and env: exactly one is needed"
	case c.Env != "" && !variableName.MatchString(c.Env):
		return "env must be the name of an environment variable that holds user:password"
	}
	return ""
}

func checkName(s string, most int) string {
	if s == "" {
		return "is required"
	}
	if len(s) > most || len(validation.IsDNS1123Label(s)) > 0 {
		return fmt.Sprintf("%.80q must consist of at most %d lower case letters, digits and '-', and begin and end with a letter or digit", s, most)
	}
	return ""
}

func checkHostPort(s string) string {
	if s == "" {
		return "is empty"
	}
	host, port, err := net.SplitHostPort(s)
	n, numErr := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || numErr != nil || n == 0 {
		return fmt.Sprintf("%.80q must be host:port, such as 10.0.0.1:9443 or [2001:db8::1]:9443", s)
	}
	if net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
		return fmt.Sprintf("%.80q has no IP address or host name before the port", s)
	}
	return ""
}
