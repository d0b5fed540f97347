package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// forwarding are the settings without which a router routes nothing.
var forwarding = [...]string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}

// KernelSettings returns an error that names what keeps the machine from
// forwarding. It changes nothing: routing is the operator's decision.
func KernelSettings() error {
	var errs []error
	for _, name := range forwarding {
		value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		switch {
		case errors.Is(err, os.ErrNotExist): // a kernel without this family
		case err != nil:
			errs = append(errs, err)
		case strings.TrimSpace(string(value)) == "0":
			errs = append(errs, fmt.Errorf("%s is 0: nothing is forwarded; set it with sysctl -w %s=1", name, name))
		}
	}
	return errors.Join(errs...)
}
