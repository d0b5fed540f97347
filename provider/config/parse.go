package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// parser walks the nodes of the document: unlike a decoder into structs it can
// tell the line of each key and go on after an error.
type parser struct {
	problems Problems
	lines    map[string]int // of each key that was given
}

// field is one known key and what reads its value.
type field struct {
	key  string
	read func(n *yaml.Node, key string)
}

func parse(b []byte) (*Config, error) {
	root, err := document(b)
	if err != nil {
		return nil, err
	}
	p := &parser{lines: map[string]int{}}
	c := &Config{RequestTimeout: DefaultRequestTimeout}
	c.Instances.Type.Kind, c.Instances.Zone.Kind, c.Instances.RegionFrom.Kind = SourceSize, SourceCluster, SourceZone
	if root != nil {
		p.config(root, c)
	}
	p.validate(c)
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, p.problems
	}
	return c, nil
}

// document returns the top node of the only document, nil if that is empty.
func document(b []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, Problems{{Line: second.Line, Text: "only one document is allowed"}}
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, nil
	}
	return doc.Content[0], nil
}

func (p *parser) config(n *yaml.Node, c *Config) {
	p.mapping(n, "", []field{
		{"endpoint", p.text(&c.Endpoint)},
		{"credentials", func(n *yaml.Node, key string) {
			p.mapping(n, key, []field{{"file", p.text(&c.Credentials.File)}, {"env", p.text(&c.Credentials.Env)}})
		}},
		{"caFile", p.text(&c.CAFile)},
		{"cluster", p.text(&c.Cluster)},
		{"identityFile", p.text(&c.IdentityFile)},
		{"offeredPools", p.boolean(&c.OfferedPools)},
		{"requestTimeout", p.duration(&c.RequestTimeout)},
		{"instances", func(n *yaml.Node, key string) { p.instances(n, key, &c.Instances) }},
		{"routers", func(n *yaml.Node, key string) { p.routers(n, key, c) }},
	})
}

func (p *parser) instances(n *yaml.Node, key string, i *Instances) {
	p.mapping(n, key, []field{
		{"internalNetworks", p.texts(&i.InternalNetworks)},
		{"externalNetworks", p.texts(&i.ExternalNetworks)},
		{"typeFrom", p.source(&i.Type, sizes)},
		{"zoneFrom", p.source(&i.Zone, places)},
		{"region", p.text(&i.Region)},
		{"regionFrom", p.source(&i.RegionFrom, places)},
		{"labels", func(n *yaml.Node, key string) { p.labels(n, key, i) }},
	})
}

// labels reads a mapping whose keys are the user's own.
func (p *parser) labels(n *yaml.Node, key string, i *Instances) {
	n = resolve(n)
	var fields []field
	i.Labels = map[string]Source{}
	if n.Kind == yaml.MappingNode {
		for j := 0; j+1 < len(n.Content); j += 2 {
			name := n.Content[j].Value
			if n.Content[j].ShortTag() == "!!merge" {
				continue // an unknown key below
			}
			fields = append(fields, field{name, func(n *yaml.Node, full string) {
				if text := checkLabel(name); text != "" {
					p.problem(n.Line, full, text)
				}
				var s Source
				before := len(p.problems)
				p.source(&s, facts)(n, full)
				if s.Kind == "" && before == len(p.problems) {
					p.problem(n.Line, full, "is empty")
				}
				i.Labels[name] = s
			}})
		}
	}
	p.mapping(n, key, fields)
}

func (p *parser) source(to *Source, allowed []string) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		var text string
		p.text(&text)(n, key)
		if text == "" {
			return
		}
		s, problem := parseSource(text, allowed)
		if problem != "" {
			p.problem(n.Line, key, problem)
			return
		}
		*to = s
	}
}

func (p *parser) routers(n *yaml.Node, key string, c *Config) {
	p.list(n, key, func(n *yaml.Node, key string) {
		r := Router{VirtualRouter: -1}
		var driver string
		p.mapping(n, key, []field{
			{"name", p.text(&r.Name)},
			{"driver", p.text(&driver)},
			{"virtualRouter", p.id(&r.VirtualRouter)},
			{"endpoints", p.texts(&r.Endpoints)},
			{"caFile", p.text(&r.CAFile)},
			{"certFile", p.text(&r.CertFile)},
			{"keyFile", p.text(&r.KeyFile)},
			{"podRoutes", p.boolean(&r.PodRoutes)},
		})
		r.Driver = cmp.Or(Driver(driver), DriverAgent)
		c.Routers = append(c.Routers, r)
	})
}

// mapping reads the known keys of a mapping.
func (p *parser) mapping(n *yaml.Node, key string, fields []field) {
	n = resolve(n)
	p.lines[key] = n.Line
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.problem(n.Line, key, "must have keys, but is "+kind(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f := slices.IndexFunc(fields, func(f field) bool { return f.key == k.Value })
		switch full := join(key, k.Value); {
		case f < 0:
			p.problem(k.Line, key, unknown(k.Value, fields))
		case seen[k.Value]:
			p.problem(k.Line, full, "is given twice")
		default:
			seen[k.Value] = true
			p.lines[full] = k.Line
			fields[f].read(v, full)
		}
	}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// list reads each element of a list.
func (p *parser) list(n *yaml.Node, key string, read func(n *yaml.Node, key string)) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.problem(n.Line, key, "must be a list, but is "+kind(n))
		return
	}
	for i, e := range n.Content {
		full := fmt.Sprintf("%s[%d]", key, i)
		p.lines[full] = e.Line
		read(e, full)
	}
}

func (p *parser) text(to *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		n = resolve(n)
		switch {
		case isNull(n):
		case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
			p.problem(n.Line, key, "must be a text, but is "+kind(n))
		default:
			*to = n.Value
		}
	}
}

func (p *parser) texts(to *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		p.list(n, key, func(n *yaml.Node, key string) {
			var s string
			before := len(p.problems)
			p.text(&s)(n, key)
			if s == "" && before == len(p.problems) {
				p.problem(n.Line, key, "is empty")
			}
			*to = append(*to, s)
		})
	}
}

func (p *parser) duration(to *time.Duration) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		n = resolve(n)
		if isNull(n) {
			return
		}
		d, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			p.problem(n.Line, key, "must be a time with a unit, such as 10s")
			return
		}
		*to = d
	}
}

// id reads the number of an object in OpenNebula.
func (p *parser) id(to *int) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		n = resolve(n)
		if isNull(n) {
			return
		}
		v, err := strconv.ParseInt(n.Value, 10, 32)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil || v < 0 {
			p.problem(n.Line, key, "must be the ID of an object in OpenNebula, a number from 0 on")
			return
		}
		*to = int(v)
	}
}

func (p *parser) boolean(to *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, key string) {
		n = resolve(n)
		if isNull(n) {
			return
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			p.problem(n.Line, key, "must be true or false, but is "+kind(n))
			return
		}
		*to = strings.EqualFold(n.Value, "true")
	}
}

func (p *parser) problem(line int, key, text string) {
	p.problems = append(p.problems, Problem{Line: line, Key: key, Text: text})
}

// resolve follows an alias. An alias of an alias does not exist in YAML.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kind says what a node is, without its value.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number (put it in quotes if it is a name)"
	case "!!bool":
		return "true or false (put it in quotes if it is a name)"
	case "!!str":
		return "a text"
	}
	return "a value of another type (put it in quotes if it is a name)"
}
