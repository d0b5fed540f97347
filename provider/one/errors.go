package one

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	goerrors "github.com/OpenNebula/one/src/oca/go/src/goca/errors"

	"github.com/onelb/onelb/ipam"
)

// outcome is the value of the metric's label "code".
func outcome(ctx context.Context, err error) string {
	var resp *goerrors.ResponseError
	var client *goerrors.ClientError
	var status *statusError
	cause := unwrapClient(err)
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &resp):
		return codeName(resp.Code)
	case errors.Is(ctx.Err(), context.DeadlineExceeded), isTimeout(cause):
		return "TIMEOUT"
	case ctx.Err() != nil:
		return "CANCELED"
	case errors.As(cause, &status):
		return "HTTP"
	case errors.As(err, &client) && client.Code == goerrors.ClientRespXMLRPCFault:
		return "FAULT"
	case isGarbage(err, cause):
		return "MALFORMED"
	}
	return "UNREACHABLE"
}

// codeName is OpenNebula's name for an error code. There are few, as the label
// of a metric needs it.
func codeName(c goerrors.OneErrCode) string {
	if name := c.String(); name != "" {
		return name
	}
	return "OTHER"
}

// unwrapClient returns what a goca error hides: ClientError has no Unwrap.
func unwrapClient(err error) error {
	var client *goerrors.ClientError
	if errors.As(err, &client) && client.Err != nil {
		err = client.Err
	}
	var request *url.Error // repeats the endpoint
	if errors.As(err, &request) {
		return request.Err
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func isGarbage(err, cause error) bool {
	var client *goerrors.ClientError
	if errors.Is(cause, errMalformed) || errors.Is(cause, errTooLarge) {
		return true
	}
	return errors.As(err, &client) && (client.Code == goerrors.ClientRespXMLRPCParse || client.Code == goerrors.ClientRespONeParse)
}

// translate makes the error of one call: it wraps a sentinel of package ipam
// where one fits and the error of the context if that ended the call.
func (c *Client) translate(ctx context.Context, method string, err error) error {
	var resp *goerrors.ResponseError
	if errors.As(err, &resp) {
		return c.translateResponse(method, resp)
	}
	cause := unwrapClient(err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s at %s: %w", method, c.endpoint, context.Canceled)
	case ctx.Err() != nil || isTimeout(cause):
		return fmt.Errorf("%s at %s: %w: no answer in time (limit %s; check that the front-end is up and not out of connections): %w: %w",
			method, c.endpoint, ipam.ErrUnavailable, c.timeout, context.DeadlineExceeded, cause)
	}
	return fmt.Errorf("%s at %s: %w: %w%s", method, c.endpoint, ipam.ErrUnavailable, cause, hint(err, cause))
}

// hint says what to do about an endpoint that did not answer as OpenNebula does.
func hint(err, cause error) string {
	var status *statusError
	var client *goerrors.ClientError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(cause, &cert):
		return "; configure the authority that signed it as caFile, or the name it is for as endpoint"
	case errors.As(cause, &status) && status.target != "":
		return "; configure the address it redirects to as endpoint"
	case errors.As(cause, &status) && status.code == 404:
		return "; the path is wrong, OpenNebula's is /RPC2"
	case errors.As(cause, &status):
		return ""
	case errors.Is(cause, errTooLarge):
		return "; narrow what the OpenNebula user may see"
	case isGarbage(err, cause):
		return "; this is no OpenNebula XML-RPC endpoint, or a proxy answers in its place"
	case errors.As(err, &client) && client.Code == goerrors.ClientRespXMLRPCFault:
		return "; this OpenNebula, or another XML-RPC server, does not know the call"
	}
	return "; check the endpoint, the network and that oned is running"
}

// malformed is the error of an answer that is none of OpenNebula's.
func (c *Client) malformed(method string, err error) error {
	return fmt.Errorf("%s at %s: %w: %w: %w", method, c.endpoint, ipam.ErrUnavailable, errMalformed, err)
}

// translateResponse handles an error that OpenNebula answered.
func (c *Client) translateResponse(method string, e *goerrors.ResponseError) error {
	text := strings.TrimSpace(strings.TrimPrefix(e.Msg, "["+method+"]"))
	advice, sentinel := classify(method, int(e.Code), text)
	if e.Code == goerrors.OneAuthenticationError {
		advice = "; check user and password in " + c.session.describe()
	}
	if sentinel == nil {
		return fmt.Errorf("%s at %s: OpenNebula answers %s: %s", method, c.endpoint, codeName(e.Code), text)
	}
	return fmt.Errorf("%s at %s: %w: OpenNebula answers %s: %s%s", method, c.endpoint, sentinel, codeName(e.Code), text, advice)
}

// meaning is one recorded message of a code that has several meanings. A message
// is compared by what it starts with, or contains if it starts with a variable.
type meaning struct {
	method   string // "" for any
	code     int
	starts   string
	contains string
	sentinel error
	advice   string
}

// meanings are tried in order. The texts are those of OpenNebula 7.5.80; where
// another release words one differently, the error has no sentinel and its text
// is all there is.
var meanings = []meaning{
	{"one.vn.hold", goerrors.OneInternalError, "Address is not part of the address range or in use", "", ipam.ErrInUse, ""},
	{"one.vn.free_ar", goerrors.OneInternalError, "Address Range has leases in use", "", ipam.ErrInUse, ""},
	{"one.vn.free_ar", goerrors.OneInternalError, "Address Range does not exist", "", ipam.ErrNotFound, ""},
	{"one.vn.update_ar", goerrors.OneInternalError, "Address Range with ID", "was not found", ipam.ErrNotFound, ""},
	{"one.vn.reserve", goerrors.OneInternalError, "NAME is already taken", "", ipam.ErrExists, ""},
	{"one.vn.reserve", goerrors.OneActionError, "Not enough free addresses", "", ipam.ErrNoSpace, ""},
	{"one.vn.delete", goerrors.OneActionError, "", "leases in use", ipam.ErrInUse, ""},
	{"", goerrors.OneActionError, "", "wrong state", ipam.ErrNotReady, ""},
	{"one.vm.updateconf", goerrors.OneInternalError, "configuration cannot be updated in state", "", ipam.ErrNotReady, ""},
	{"one.vm.updateconf", goerrors.OneActionError, "configuration cannot be updated in state", "", ipam.ErrNotReady, ""},
	{"one.vm.attachnic", goerrors.OneActionError, "Cannot get IP/MAC lease", "", ipam.ErrInUse, ""},
	{"one.vm.attachnic", goerrors.OneActionError, "Alias not found", "", ipam.ErrNotFound, ""},
	{"one.vm.detachnic", goerrors.OneActionError, "", "does not exist", ipam.ErrNotFound, ""},
	{"one.vn.update", goerrors.OneInternalError, "", "includes a restricted attribute", ipam.ErrDenied, ""},
	{"", goerrors.OneAuthorizationError, "", "limit of", ipam.ErrDenied, "; raise the quota of the OpenNebula user or its group"},
	{"", goerrors.OneAuthorizationError, "", "is locked", ipam.ErrDenied, "; unlock the object in OpenNebula"},
}

// classify finds the sentinel for OpenNebula's code and message, or nil.
func classify(method string, code int, text string) (advice string, sentinel error) {
	for _, m := range meanings {
		if m.code == code && (m.method == "" || m.method == method) &&
			strings.HasPrefix(text, m.starts) && strings.Contains(text, m.contains) {
			return m.advice, m.sentinel
		}
	}
	switch code {
	case goerrors.OneAuthenticationError:
		return "", ipam.ErrUnauthenticated
	case goerrors.OneAuthorizationError:
		return "; grant the OpenNebula user this right, or unlock the object if it is locked", ipam.ErrDenied
	case goerrors.OneNoExistsError:
		return "", ipam.ErrNotFound
	case goerrors.OneLockedError:
		return "; unlock the object in OpenNebula", ipam.ErrDenied
	}
	return "", nil
}
