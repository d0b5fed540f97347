package router

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnreachable is what every *UnreachableError is.
var ErrUnreachable = errors.New("no instance of the router is reachable")

// ErrClosed is returned by Wait when Run has ended.
var ErrClosed = errors.New("router client has ended")

// ErrTooOld is what State.Lacks returns: an instance's agent cannot do what is asked for.
var ErrTooOld = errors.New("the router's agent is too old")

// ErrNoMaster is in what Wait returns when its context ends and no instance that can
// be reached carries the traffic.
var ErrNoMaster = errors.New("no instance that can be reached is the master")

// Reason classifies a refusal. The values are part of the wire format.
type Reason string

// Why a router refuses a document.
const (
	// ReasonInvalid: Validate failed.
	ReasonInvalid Reason = "Invalid"
	// ReasonStaleToken: a newer leader has pushed.
	ReasonStaleToken Reason = "StaleToken"
	// ReasonGeneration: the router does not run the base generation. The
	// client reads again and retries by itself.
	ReasonGeneration Reason = "GenerationMismatch"
	// ReasonHash: the result differs from what the client means.
	ReasonHash Reason = "HashMismatch"
	// ReasonIdentity: another cluster of the same name owns the document.
	ReasonIdentity Reason = "OtherIdentity"
	// ReasonTaken: another cluster owns the address, or it is one of its nodes, pods or gateways.
	ReasonTaken Reason = "AddressTaken"
	// ReasonUnknownAddress: no interface of the router has the address's network.
	ReasonUnknownAddress Reason = "UnknownAddress"
	// ReasonRoute: the router may not have one of the routes, or cannot.
	ReasonRoute Reason = "Route"
	// ReasonUnsupported: there is something in the request that the agent does not
	// know. It is older than the client.
	ReasonUnsupported Reason = "Unsupported"
	// ReasonTooLarge: with the other clusters' documents it is too much.
	ReasonTooLarge Reason = "TooLarge"
	// ReasonKernel: the kernel refused the transaction; the old rules run.
	ReasonKernel Reason = "Kernel"
	// ReasonStorage: the document could not be kept on disk; the old rules run.
	ReasonStorage Reason = "Storage"
)

// InvalidError is what Validate returns. Frontend and Service are empty when the
// fault is not one frontend's.
type InvalidError struct {
	Frontend string
	Service  string
	Message  string
}

// Error implements error.
func (e *InvalidError) Error() string {
	if e.Frontend == "" {
		return e.Message
	}
	return fmt.Sprintf("frontend %s of Service %s: %s", e.Frontend, e.Service, e.Message)
}

func invalid(f Frontend, format string, args ...any) error {
	e := &InvalidError{Service: f.Service, Message: fmt.Sprintf(format, args...)}
	if f.Port != 0 || f.Address.IsValid() || f.Protocol != "" {
		e.Frontend = f.Key().String()
	}
	return e
}

// RejectedError is a router's refusal of a generation. Everything that ran
// before still runs.
type RejectedError struct {
	Router     string
	Endpoint   string
	Generation uint64
	Reason     Reason
	Message    string
	// Frontend and Service name the culprit, when it is one.
	Frontend string
	Service  string
}

// Error implements error.
func (e *RejectedError) Error() string {
	return fmt.Sprintf("router %s (%s) refuses generation %d: %s: %s", e.Router, e.Endpoint, e.Generation, e.Reason, e.Message)
}

// UnreachableError says why none of a router's instances can be used. It is
// ErrUnreachable.
type UnreachableError struct {
	Router string
	// Errors has one error for each endpoint, in the order of the options.
	Errors []error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	texts := make([]string, 0, len(e.Errors))
	for _, err := range e.Errors {
		texts = append(texts, err.Error())
	}
	return fmt.Sprintf("router %s: no instance is reachable: %s", e.Router, strings.Join(texts, "; "))
}

// Is makes errors.Is(err, ErrUnreachable) true.
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Unwrap gives access to each endpoint's error.
func (e *UnreachableError) Unwrap() []error { return e.Errors }
