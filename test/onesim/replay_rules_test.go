package onesim

import (
	"regexp"
	"strings"
)

// notImplemented are recorded methods that the simulator does not have, with the reason.
var notImplemented = map[string]string{}

// difference is something that cannot equal the recording. It is applied to both sides before they are compared. path
// is the end of an element's path, or "answer" for the plain values.
type difference struct {
	path   string
	reason string
	keep   func(string) string // what is left of the text; nil drops the element's content
	only   string              // part of the recording's name; empty for all
	used   int
}

var (
	ctime   = regexp.MustCompile(`[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}`)
	epoch   = regexp.MustCompile(`\b1\d{9}\b`)
	hex64   = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	lineNum = regexp.MustCompile(`at line \d+,`)
)

func masks(re *regexp.Regexp, mask string) func(string) string {
	return func(text string) string { return re.ReplaceAllString(text, mask) }
}

// nonZero keeps whether something has happened, not when.
func nonZero(text string) string {
	if text == "0" || text == "-1" || text == "" {
		return text
	}
	return "some"
}

// differences is the one place for what differs by nature.
var differences = []difference{
	{path: "VM/STIME", reason: "time of day", keep: nonZero},
	{path: "VM/ETIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/STIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/ETIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/PSTIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/PETIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/RSTIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/RETIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/ESTIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/EETIME", reason: "time of day", keep: nonZero},
	{path: "HISTORY/REQUEST_ID", reason: "oned numbers requests at random", keep: nonZero},
	{path: "LOCK/TIME", reason: "time of day", keep: nonZero},
	{path: "LOCK/REQ_ID", reason: "oned numbers requests at random", keep: nonZero},
	{path: "VMTEMPLATE/REGTIME", reason: "time of day", keep: nonZero},
	{path: "LOGIN_TOKEN/EXPIRATION_TIME", reason: "time of day", keep: nonZero},
	{path: "LOGIN_TOKEN/TOKEN", reason: "random", keep: masks(hex64, "token")},
	{path: "TEMPLATE/TOKEN_PASSWORD", reason: "random", keep: masks(hex64, "token")},
	{path: "TEMPLATE/ERROR", reason: "starts with the time of day", keep: masks(ctime, "time")},
	{path: "USER_TEMPLATE/ERROR", reason: "starts with the time of day", keep: masks(ctime, "time")},
	{path: "OS/UUID", reason: "random", keep: func(text string) string { return strings.Repeat("x", len(text)) }},
	{path: "VM/LAST_POLL", reason: "when the monitor came by depends on the load"},
	{path: "VM/MONITORING", reason: "the dummy driver reports random figures, from its first poll on"},
	{path: "MONITORING_DATA/MONITORING", reason: "the dummy driver reports random figures"},
	{
		path:   "USER_TEMPLATE/SCHED_MESSAGE",
		reason: "the scheduler came by before the first monitoring of the datastores: a matter of load",
	},
	{path: "HOST_SHARE/PCI_DEVICES", reason: "made-up hardware of the dummy driver"},
	{path: "HOST_SHARE/NUMA_NODES", reason: "made-up hardware of the dummy driver"},
	{path: "HOST/MONITORING", reason: "the dummy driver reports random figures"},
	{path: "TEMPLATE/KVM_CPU_FEATURES", reason: "made-up hardware of the dummy driver"},
	{path: "TEMPLATE/KVM_CPU_MODELS", reason: "made-up hardware of the dummy driver"},
	{path: "TEMPLATE/MEMORY_ENCRYPTION", reason: "made-up hardware of the dummy driver"},
	{path: "answer", reason: "a random login token", only: "one.user.login", keep: masks(hex64, "token")},
	{path: "answer", reason: "the message is the time of the lock", only: "one.document.lock-test-again", keep: masks(epoch, "time")},
	{path: "answer", reason: "oned's line number is uninitialised memory", only: "one.vm.updateconf-bad-syntax", keep: masks(lineNum, "at line N,")},
}

// optional are elements that are there or not depending on the load, or on made-up hardware: they are taken out.
var optional = map[string]bool{
	"USER_TEMPLATE/SCHED_MESSAGE": true, "TEMPLATE/KVM_CPU_FEATURES": true, "TEMPLATE/KVM_CPU_MODELS": true,
	"TEMPLATE/MEMORY_ENCRYPTION": true,
}

func (d *difference) apply(e exchange, a *answerDoc) {
	if d.only != "" && !strings.Contains(e.name, d.only) {
		return
	}
	if d.path == "answer" {
		for i, v := range a.values {
			if masked := d.keep(v); masked != v {
				a.values[i] = masked
				d.used++
			}
		}
		return
	}
	if a.doc != nil {
		d.applyNode("/"+a.doc.name, a.doc)
	}
}

func (d *difference) applyNode(path string, n *node) {
	kept := n.children[:0]
	for _, c := range n.children {
		sub := path + "/" + c.name
		if strings.HasSuffix(sub, "/"+d.path) {
			d.used++
			if optional[d.path] {
				continue
			}
			if d.keep != nil {
				c.text = d.keep(c.text)
			} else {
				c.text, c.children = "", nil
			}
		} else {
			d.applyNode(sub, c)
		}
		kept = append(kept, c)
	}
	n.children = kept
}
