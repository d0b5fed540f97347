package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const full = `
endpoint: http://10.30.0.1:2633/RPC2      # required
credentials:
  file: /etc/onelb/one_auth
caFile: ""
cluster: lab
requestTimeout: 15s
instances:
  internalNetworks: [private, "1"]
  externalNetworks: ["203.0.113.0/24"]
  typeFrom: vm:FLAVOUR
  zoneFrom: host:RACK
  region: here
  labels: {example.org/host: host, "vm": id}
routers:
  - name: edge
    endpoints: ["10.30.0.11:9443", "[fd00::1]:9443", router.example.org:9443]
    caFile: /etc/onelb/router/ca.crt
    certFile: /etc/onelb/router/tls.crt
    keyFile: /etc/onelb/router/tls.key
  - {name: stock, driver: appliance, virtualRouter: 0}
`

func TestParse(t *testing.T) {
	got, err := Parse(strings.NewReader(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Endpoint: "http://10.30.0.1:2633/RPC2", Credentials: Credentials{File: "/etc/onelb/one_auth"},
		Cluster: "lab", RequestTimeout: 15 * time.Second,
		Instances: Instances{
			InternalNetworks: []string{"private", "1"}, ExternalNetworks: []string{"203.0.113.0/24"},
			Type: Source{SourceVM, "FLAVOUR"}, Zone: Source{SourceHost, "RACK"}, Region: "here", RegionFrom: Source{Kind: SourceZone},
			Labels: map[string]Source{"example.org/host": {Kind: SourceHost}, "vm": {Kind: SourceID}},
		},
		Routers: []Router{{
			Name: "edge", Driver: DriverAgent, VirtualRouter: -1, Endpoints: []string{"10.30.0.11:9443", "[fd00::1]:9443", "router.example.org:9443"},
			CAFile: "/etc/onelb/router/ca.crt", CertFile: "/etc/onelb/router/tls.crt", KeyFile: "/etc/onelb/router/tls.key",
		}, {Name: "stock", Driver: DriverAppliance}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults(t *testing.T) {
	got, err := Parse(strings.NewReader("endpoint: https://one/RPC2\ncredentials: {env: ONE_AUTH}\ncluster: a\nrouters:\ncaFile: ~\nrequestTimeout:\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Endpoint: "https://one/RPC2", Credentials: Credentials{Env: "ONE_AUTH"},
		Cluster: "a", RequestTimeout: DefaultRequestTimeout,
		Instances: Instances{Type: Source{Kind: SourceSize}, Zone: Source{Kind: SourceCluster}, RegionFrom: Source{Kind: SourceZone}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// base is valid; each case below changes or adds lines.
const base = "endpoint: http://one/RPC2\ncredentials: {file: /a}\ncluster: lab\n"

func TestProblems(t *testing.T) {
	router := func(s string) string {
		return base + "routers:\n- {name: a, endpoints: [\"h:1\"], caFile: x, certFile: y, keyFile: z}\n" + s
	}
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"empty":     {"", "endpoint: is required: the URL of OpenNebula's XML-RPC API, such as http://one.example.org:2633/RPC2; credentials: is required: exactly one of file and env; cluster: is required"},
		"null":      {"---\n~\n", "endpoint: is required: the URL of OpenNebula's XML-RPC API, such as http://one.example.org:2633/RPC2; credentials: is required: exactly one of file and env; cluster: is required"},
		"list":      {"- a\n", "line 1: must have keys, but is a list"},
		"typo":      {base + "requestTimout: 1s\n", `line 4: unknown key "requestTimout"; did you mean "requestTimeout"?`},
		"case":      {base + "CAFILE: x\n", `line 4: unknown key "CAFILE"; did you mean "caFile"?`},
		"unknown":   {base + "x: y\n", `line 4: unknown key "x"; known are endpoint, credentials, caFile, cluster, identityFile, offeredPools, requestTimeout, instances, routers`},
		"nested":    {base + "instances:\n  regin: a\n", `line 5: instances: unknown key "regin"; did you mean "region"?`},
		"in list":   {router("- {name: b, endpoint: [\"h:2\"], caFile: x, certFile: y, keyFile: z}\n"), `line 6: routers[1]: unknown key "endpoint"; did you mean "endpoints"?; line 6: routers[1].endpoints: is required`},
		"merge":     {base + "<<: {caFile: x}\n", `line 4: unknown key "<<"`},
		"twice":     {base + "cluster: lab2\n", "line 4: cluster: is given twice"},
		"no bool":   {base + "offeredPools: yes please\n", "line 4: offeredPools: must be true or false, but is a text"},
		"number":    {base + "caFile: 5\n", "line 4: caFile: must be a text, but is a number (put it in quotes if it is a name)"},
		"bool":      {base + "instances: {region: true}\n", "line 4: instances.region: must be a text, but is true or false"},
		"date":      {base + "instances: {region: 2026-01-01}\n", "line 4: instances.region: must be a text, but is a value of another type"},
		"map":       {base + "caFile: {a: b}\n", "line 4: caFile: must be a text, but is a mapping"},
		"scalar":    {base + "instances: private\n", "line 4: instances: must have keys, but is a text"},
		"no list":   {base + "instances:\n  internalNetworks: private\n", "line 5: instances.internalNetworks: must be a list, but is a text"},
		"empty in":  {base + "instances:\n  internalNetworks: [a, \"\"]\n", "line 5: instances.internalNetworks[1]: is empty"},
		"dup net":   {base + "instances:\n  internalNetworks: [a, a]\n", `line 5: instances.internalNetworks[1]: "a" is listed twice`},
		"both net":  {base + "instances:\n  internalNetworks: [a]\n  externalNetworks: [b, a]\n", `line 6: instances.externalNetworks[1]: "a" is one of internalNetworks too`},
		"host bits": {base + "instances:\n  externalNetworks: [10.0.0.5/24]\n", `line 5: instances.externalNetworks[0]: "10.0.0.5/24" has bits beyond its length: 10.0.0.0/24 is meant`},
		"source":    {base + "instances: {zoneFrom: rack}\n", `line 4: instances.zoneFrom: "rack" is none of zone, cluster, host, vm:ATTRIBUTE`},
		"size":      {base + "instances: {typeFrom: host}\n", `line 4: instances.typeFrom: "host" is none of size, vm:ATTRIBUTE, none`},
		"attr":      {base + "instances: {zoneFrom: \"vm:rack\"}\n", `line 4: instances.zoneFrom: "vm:rack": the name of an attribute consists of A-Z`},
		"no attr":   {base + "instances: {zoneFrom: \"vm:\"}\n", `line 4: instances.zoneFrom: "vm:": the name of an attribute`},
		"regions":   {base + "instances: {region: a, regionFrom: cluster}\n", `line 4: instances.regionFrom: cannot be given beside region`},
		"label":     {base + "instances:\n  labels: {\"a b\": host}\n", `line 5: instances.labels.a b: is no valid name of a label`},
		"k8s":       {base + "instances:\n  labels: {node.kubernetes.io/x: host}\n", `line 5: instances.labels.node.kubernetes.io/x: belongs to Kubernetes`},
		"no value":  {base + "instances:\n  labels:\n    a:\n", `line 6: instances.labels.a: is empty`},
		"lbl list":  {base + "instances:\n  labels: [a]\n", `line 5: instances.labels: must have keys, but is a list`},
		"lbl none":  {base + "instances:\n  labels: {a: none}\n", `line 5: instances.labels.a: "none" is none of id, name`},
		"lbl dup":   {base + "instances:\n  labels: {a: host, a: id}\n", `line 5: instances.labels.a: is given twice`},
		"unitless":  {base + "requestTimeout: 10\n", "line 4: requestTimeout: must be a time with a unit, such as 10s"},
		"region":    {base + "instances: {region: a b}\n", `line 4: instances.region: "a b" is no valid value of a label`},
		"zero":      {base + "requestTimeout: 0s\n", "line 4: requestTimeout: must be more than 0"},
		"negative":  {base + "requestTimeout: -1s\n", "line 4: requestTimeout: must be more than 0"},
		"cluster":   {"endpoint: http://one/RPC2\ncredentials: {file: /a}\ncluster: Lab_1\n", `line 3: cluster: "Lab_1" must consist of at most 40 lower case letters`},
		"long":      {"endpoint: http://one/RPC2\ncredentials: {file: /a}\ncluster: " + strings.Repeat("a", 41) + "\n", "line 3: cluster: "},
		"scheme":    {"endpoint: one:2633\ncredentials: {file: /a}\ncluster: lab\n", "line 1: endpoint: must be a URL such as http://one.example.org:2633/RPC2"},
		"no cred":   {"endpoint: http://one/RPC2\ncredentials: {}\ncluster: lab\n", "line 2: credentials: is required: exactly one of file and env"},
		"two cred":  {"endpoint: http://one/RPC2\ncredentials: {file: /a, env: B}\ncluster: lab\n", "line 2: credentials: has both file and env"},
		"dup name":  {router("- {name: a, endpoints: [\"h:2\"], caFile: x, certFile: y, keyFile: z}\n"), `line 6: routers[1].name: "a" is the name of another router too`},
		"port":      {router("- {name: b, endpoints: [\"h\", \"h:0\", \":1\", \"h_:1\", \"h:2\", \"h:2\"], caFile: x, certFile: y, keyFile: z}\n"), `line 6: routers[1].endpoints[0]: "h" must be host:port, such as 10.0.0.1:9443 or [2001:db8::1]:9443; line 6: routers[1].endpoints[1]: "h:0" must be host:port, such as 10.0.0.1:9443 or [2001:db8::1]:9443; line 6: routers[1].endpoints[2]: ":1" must be host:port, such as 10.0.0.1:9443 or [2001:db8::1]:9443; line 6: routers[1].endpoints[3]: "h_:1" has no IP address or host name before the port; line 6: routers[1].endpoints[5]: "h:2" is listed twice`},
		"no files":  {router("- name: b\n  endpoints: [\"h:1\"]\n"), "line 6: routers[1].caFile: is required; onelbctl router bootstrap makes the files; line 6: routers[1].certFile: is required"},
		"driver":    {base + "routers:\n- {name: a, driver: applance}\n", `line 5: routers[0].driver: "applance" is none of agent, appliance`},
		"no vr":     {base + "routers:\n- {name: a, driver: appliance}\n", "line 5: routers[0].virtualRouter: is required with driver: appliance"},
		"vr agent":  {router("- {name: b, virtualRouter: 1, endpoints: [\"h:2\"], caFile: x, certFile: y, keyFile: z}\n"), "line 6: routers[1].virtualRouter: is for driver: appliance only"},
		"vr name":   {base + "routers:\n- {name: a, driver: appliance, virtualRouter: edge}\n", "line 5: routers[0].virtualRouter: must be the ID of an object in OpenNebula"},
		"vr minus":  {base + "routers:\n- {name: a, driver: appliance, virtualRouter: -1}\n", "line 5: routers[0].virtualRouter: must be the ID"},
		"vr twice":  {base + "routers:\n- {name: a, driver: appliance, virtualRouter: 1}\n- {name: b, driver: appliance, virtualRouter: 1}\n", `line 6: routers[1].virtualRouter: is that of router "a" too`},
		"vr files":  {base + "routers:\n- {name: a, driver: appliance, virtualRouter: 1, podRoutes: true, caFile: x}\n", "line 5: routers[0].caFile: is for driver: agent only: no agent runs on a stock appliance; line 5: routers[0].podRoutes: is for driver: agent only"},
		"second":    {base + "---\na: b\n", "only one document is allowed"},
		"syntax":    {base + "a: [\n", "not YAML: yaml: line"},
		"tab":       {"a:\n\tb: c\n", "not YAML: yaml: line 2"},
		"several":   {"endpoint: http://one/RPC2\ncredential: {file: /a}\ncluster: A\nrequestTimeout: 1\n", `line 2: unknown key "credential"; did you mean "credentials"?; line 3: cluster: "A" must consist`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(c.text))
			if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	for _, text := range []string{
		"credentials: oneadmin:geheim\n",
		"credentials: [\"oneadmin:geheim\"]\n",
		"credentials: {env: \"oneadmin:geheim\"}\n",
		"credentials: {file: [geheim]}\n",
		"credentials: {file: 1, env: geheim}\n",
		"endpoint: http://oneadmin:geheim@one/RPC2\n",
		"endpoint: http://oneadmin:geheim@one:%zz/RPC2\n",
		"endpoint: [geheim]\n",
		"requestTimeout: geheim\n",
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cloud.yaml")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte(base+"clustr: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 1 || problems[0].Line != 4 || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || c.Cluster != "lab" {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Parse(strings.NewReader(base + strings.Repeat("#", maxSize))); err == nil {
		t.Error("no error")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{full, base, "", "a: &a [*a]\n", "endpoint: &e http://x\ncaFile: *e\n", "- - -", "? a : b", "\xff", "!!binary x: y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text))
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err == nil && (c.Endpoint == "" || c.Cluster == "" || c.RequestTimeout <= 0 || (c.Credentials.File == "") == (c.Credentials.Env == "")) {
			t.Errorf("incomplete: %+v", c)
		}
	})
}
