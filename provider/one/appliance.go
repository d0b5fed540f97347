package one

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// mergeConf is the type of one.vm.updateconf that merges what is given into what is
// there. The other one replaces the whole context.
const mergeConf = 1

// VirtualRouterMachines lists the IDs of the instances of a virtual router.
func (c *Client) VirtualRouterMachines(ctx context.Context, id int) ([]int, error) {
	const method = "one.vrouter.info"
	body, err := c.callText(ctx, method, id, false)
	if err != nil {
		return nil, fmt.Errorf("read virtual router %d: %w", id, err)
	}
	var x struct {
		XMLName xml.Name
		ID      *int  `xml:"ID"`
		VMs     []int `xml:"VMS>ID"`
	}
	err = xml.Unmarshal([]byte(body), &x)
	if err == nil && (x.XMLName.Local != "VROUTER" || x.ID == nil || *x.ID != id) {
		err = fmt.Errorf("it is a document <%s> of another object", x.XMLName.Local)
	}
	if err != nil {
		return nil, fmt.Errorf("read virtual router %d: %w", id, c.malformed(method, err))
	}
	return x.VMs, nil
}

// Contextualized is a virtual machine with its context.
type Contextualized struct {
	VM
	// VirtualRouterID is the virtual router that it is an instance of, or -1.
	VirtualRouterID int
	// Context has the variables of its context; those that OpenNebula encrypts, as
	// it keeps them.
	Context map[string]string
}

// VMContext reads one virtual machine and its context, fresh.
func (c *Client) VMContext(ctx context.Context, id int) (Contextualized, error) {
	const method = "one.vm.info"
	body, err := c.callText(ctx, method, id, false)
	if err != nil {
		return Contextualized{}, fmt.Errorf("read virtual machine %d: %w", id, err)
	}
	vm, err := parseContextualized([]byte(body))
	if err == nil && vm.ID != id {
		err = fmt.Errorf("it describes VM %d", vm.ID)
	}
	if err != nil {
		return Contextualized{}, fmt.Errorf("read virtual machine %d: %w", id, c.malformed(method, err))
	}
	return vm, nil
}

func parseContextualized(body []byte) (Contextualized, error) {
	vm, err := parseVM(body)
	if err != nil {
		return Contextualized{}, err
	}
	var x struct {
		VRouter string   `xml:"TEMPLATE>VROUTER_ID"`
		Context xmlAttrs `xml:"TEMPLATE>CONTEXT"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return Contextualized{}, err
	}
	router, err := optionalID(x.VRouter)
	if err != nil {
		return Contextualized{}, fmt.Errorf("VM %d: VROUTER_ID: %w", vm.ID, err)
	}
	return Contextualized{vm, router, x.Context.singles}, nil
}

// MergeContext sets variables of a machine's context and leaves all others as they
// are. A running machine is in HOTPLUG until its host has the new context.
// ipam.ErrNotReady: it is in a state in which it takes none.
func (c *Client) MergeContext(ctx context.Context, id int, variables map[string]string) error {
	template, err := encodeContext(variables)
	if err == nil {
		_, err = c.callID(ctx, "one.vm.updateconf", id, template, mergeConf)
	}
	if err != nil {
		return fmt.Errorf("change the context of virtual machine %d: %w", id, err)
	}
	return nil
}

// encodeContext writes variables in OpenNebula's text form: its XML form drops what
// has an empty value. So what that form cannot hold is refused.
func encodeContext(variables map[string]string) (string, error) {
	if len(variables) == 0 {
		return "", errors.New("no variables")
	}
	parts := make([]string, 0, len(variables))
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		value := variables[name]
		if !attributeName.MatchString(name) {
			return "", fmt.Errorf("variable %q: must consist of A-Z, 0-9 and _", name)
		}
		// $NAME and $NAME[...] are replaced by OpenNebula, the others end the value.
		if strings.ContainsAny(value, "\"\\$\n\r[]") {
			return "", fmt.Errorf("variable %s: value %q has a character that OpenNebula does not keep", name, value)
		}
		if err := checkValue(value); err != nil {
			return "", fmt.Errorf("variable %s: %w", name, err)
		}
		parts = append(parts, name+`="`+value+`"`)
	}
	return "CONTEXT=[ " + strings.Join(parts, ", ") + " ]", nil
}
