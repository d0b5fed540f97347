package onesim

import (
	_ "embed"
	"fmt"
	"strings"
)

// onedConf is one.system.config of a standard installation: the simulator takes from it which attributes are
// restricted and which a NIC inherits.
//
//go:embed oned.conf.xml
var onedConf string

func loadConfig() (*template, error) {
	t, err := parseXMLTemplate(onedConf)
	if err != nil {
		return nil, fmt.Errorf("read oned.conf.xml: %w", err)
	}
	return t, nil
}

// configured are the values of a repeated attribute of oned.conf.
func (s *Sim) configured(name string) []string {
	var out []string
	for i := range s.config.attrs {
		if a := &s.config.attrs[i]; a.name == name && !a.vector {
			out = append(out, a.value)
		}
	}
	return out
}

// restricted finds the first attribute, by name, that a user may not set; section is "" or a vector's name.
func (s *Sim) restricted(list string, t *template) string {
	for i := range t.attrs {
		a := &t.attrs[i]
		for _, name := range s.configured(list) {
			section, key, nested := strings.Cut(name, "/")
			if section != a.name {
				continue
			}
			if !nested {
				return a.name
			}
			if a.vector && a.has(key) {
				return key
			}
		}
	}
	return ""
}

func mustTemplate(text string) *template {
	t, err := parseTemplate(text)
	if err != nil {
		panic("onesim: built-in template: " + err.Error())
	}
	return t
}

func systemMethods() []method {
	return []method{
		{name: "one.system.version", run: func(*call) (any, error) { return Version, nil }},
		{name: "one.system.config", run: systemConfig},
		{name: "one.zone.info", params: "i|b", run: zoneInfo},
		{name: "one.zonepool.info", run: zonePoolInfo},
		{name: "one.zone.raftstatus", run: raftStatus},
	}
}

// systemConfig hides the database from users.
func systemConfig(c *call) (any, error) {
	t := c.config.clone()
	if !c.admin() {
		for _, db := range t.vectors("DB") {
			db.set("BACKEND", "***")
		}
	}
	var b xmlOut
	t.writeXML(&b, "OPENNEBULA_CONFIGURATION")
	return b.String(), nil
}

func writeZone(b *xmlOut) {
	b.open("ZONE")
	b.int("ID", 0)
	b.text("NAME", "OpenNebula")
	b.int("STATE", 0)
	b.vector("TEMPLATE", []pair{{"ENDPOINT", "http://localhost:2633/RPC2"}, {"ENDPOINT_GRPC", "localhost:2634"}})
	b.ids("SERVER_POOL", nil)
	b.close("ZONE")
}

func zoneInfo(c *call) (any, error) {
	if c.int(0) != 0 {
		return nil, noExists(kindZone, c.int(0))
	}
	var b xmlOut
	writeZone(&b)
	return b.String(), nil
}

func zonePoolInfo(*call) (any, error) {
	var b xmlOut
	b.open("ZONE_POOL")
	writeZone(&b)
	b.close("ZONE_POOL")
	return b.String(), nil
}

// raftStatus is that of a front-end without high availability.
func raftStatus(*call) (any, error) {
	var b xmlOut
	b.open("RAFT")
	for _, p := range []struct {
		name  string
		value int
	}{
		{"SERVER_ID", -1}, {"STATE", 0}, {"TERM", 0}, {"VOTEDFOR", -1}, {"COMMIT", 0}, {"LOG_INDEX", -1}, {"LOG_TERM", -1}, {"FEDLOG_INDEX", -1},
	} {
		b.int(p.name, p.value)
	}
	b.close("RAFT")
	return b.String(), nil
}
