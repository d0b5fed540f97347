package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// SourceKind says what a value about a node is taken from.
type SourceKind string

// The kinds of Source. Those with an attribute are written KIND:NAME.
const (
	SourceNone    SourceKind = "none"    // no value
	SourceSize    SourceKind = "size"    // virtual CPUs and memory: 2vcpu-4096mb
	SourceID      SourceKind = "id"      // the machine's ID
	SourceName    SourceKind = "name"    // the machine's name
	SourceOwner   SourceKind = "owner"   // name of the OpenNebula user who owns the machine
	SourceZone    SourceKind = "zone"    // name of the OpenNebula zone
	SourceCluster SourceKind = "cluster" // name of the OpenNebula cluster, or attribute of its template
	SourceHost    SourceKind = "host"    // name of the host, or attribute of its template
	SourceVM      SourceKind = "vm"      // attribute of the machine's user template
)

// Source says where a value about a node comes from. The zero value is none.
type Source struct {
	Kind SourceKind
	// Attribute is the name of an attribute of the template. Empty: the name.
	Attribute string
}

// String is the form in the file.
func (s Source) String() string {
	if s.Attribute == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + ":" + s.Attribute
}

// places are what a zone or region may be taken from.
var places = []string{"zone", "cluster", "host", "vm:ATTRIBUTE", "cluster:ATTRIBUTE", "host:ATTRIBUTE", "none"}

// sizes are what an instance type may be taken from.
var sizes = []string{"size", "vm:ATTRIBUTE", "none"}

// facts are what a label may be taken from.
var facts = []string{"id", "name", "owner", "size", "zone", "cluster", "host", "vm:ATTRIBUTE", "cluster:ATTRIBUTE", "host:ATTRIBUTE"}

// oned turns names of attributes to upper case.
var attribute = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// parseSource reads one of the allowed forms, or says what is wrong.
func parseSource(text string, allowed []string) (s Source, problem string) {
	kind, name, has := strings.Cut(text, ":")
	form := kind
	if has {
		form += ":ATTRIBUTE"
	}
	if !slices.Contains(allowed, form) {
		return s, fmt.Sprintf("%.80q is none of %s", text, strings.Join(allowed, ", "))
	}
	if has && !attribute.MatchString(name) {
		return s, fmt.Sprintf("%.80q: the name of an attribute consists of A-Z, 0-9 and _", text)
	}
	return Source{Kind: SourceKind(kind), Attribute: name}, ""
}

// reserved is what the node controller refuses to write, in its own words.
var reserved = regexp.MustCompile(`(^|\.)(kubernetes|k8s)\.io/`)

func checkLabel(name string) string {
	switch {
	case len(validation.IsQualifiedName(name)) > 0:
		return "is no valid name of a label"
	case reserved.MatchString(name):
		return "belongs to Kubernetes: cloud providers may not set labels of kubernetes.io and k8s.io"
	}
	return ""
}
