package main

import (
	"strings"

	"github.com/onelb/onelb/provider/instances"
)

// vmstates lists what each state of a virtual machine means for its Node.
func vmstates(string) (string, error) {
	var vm, lcm []string
	for _, r := range instances.StateRules() {
		line := row(code(r.State), yesNo(r.Exists), yesNo(r.Shutdown), r.Reason)
		if r.LCM {
			lcm = append(lcm, line)
		} else {
			vm = append(vm, line)
		}
	}
	var out strings.Builder
	out.WriteString("\n" + table(vm, "`STATE`", "exists", "shut down", "why") + "\n")
	out.WriteString("`ACTIVE`, by `LCM_STATE`:\n\n" + table(lcm, "`LCM_STATE`", "exists", "shut down", "why") + "\n")
	return out.String(), nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
