package onesim

import (
	"errors"
	"fmt"
)

// Code is an error code of oned, the third member of a failed answer.
type Code int

// The codes that oned gives. 0x8000 (LOCKED) exists but is never sent: a locked object answers Authorization.
const (
	CodeAuthentication Code = 0x0100
	CodeAuthorization  Code = 0x0200
	CodeNoExists       Code = 0x0400
	CodeAction         Code = 0x0800
	CodeXMLRPCAPI      Code = 0x1000
	CodeInternal       Code = 0x2000
	CodeAllocate       Code = 0x4000
)

// Error is a failure as oned reports it. Message starts with "[method] " once it goes on the wire.
type Error struct {
	Code     Code
	Message  string
	ObjectID int
}

func (e *Error) Error() string { return fmt.Sprintf("0x%04x: %s", int(e.Code), e.Message) }

// ErrNotFound is returned by the Go helpers for an object that does not exist.
var ErrNotFound = errors.New("no such object")

func fail(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), ObjectID: -1}
}

// noExists names an object as oned does; a negative id makes it speak of the pool.
func noExists(k *kind, id int) *Error {
	if id < 0 {
		return &Error{Code: CodeNoExists, Message: "Error getting " + k.long + " Pool.", ObjectID: -1}
	}
	return &Error{Code: CodeNoExists, Message: fmt.Sprintf("Error getting %s [%d].", k.long, id), ObjectID: id}
}
