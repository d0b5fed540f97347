package addr

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Answers that come after the deadline of their question spoil one exchange at most, not
// all that follow.
func TestLateAnswers(t *testing.T) {
	table, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	question := make([]byte, sizeofLink)
	binary.NativeEndian.PutUint32(question[4:], 1) // of the first interface
	for range 3 {
		_, err := table.conn.Send(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: question})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = table.Interfaces()
		if got, err := table.Interfaces(); err != nil || len(got) == 0 {
			t.Errorf("%d interfaces, %v", len(got), err)
		}
	}
}
