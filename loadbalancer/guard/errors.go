package guard

import (
	"errors"

	"github.com/onelb/onelb/ipam"
)

// advice is what an operator can do about an error.
func advice(err error) string {
	switch {
	case errors.Is(err, ipam.ErrDenied):
		return "; our OpenNebula user needs MANAGE on the nodes' virtual machines"
	case errors.Is(err, ipam.ErrInUse):
		return `; the reservation's ranges need SHARED="YES", and the address must be on no other machine otherwise`
	case errors.Is(err, ipam.ErrNotReady):
		return "; the machine takes no NICs in this state"
	}
	return ""
}
