package bgprouter

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// commandTimeout bounds a command.
const commandTimeout = 20 * time.Second

// command gives a daemon commands over the socket that vtysh uses: each ends with a
// NUL, and so does each answer, with three of them and a code. It returns the last
// answer.
func (f *FRR) command(ctx context.Context, daemon string, commands ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", f.path(daemon+".vty"))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer := ""
	for _, line := range append([]string{"enable"}, commands...) {
		if _, err := c.Write(append([]byte(line), 0)); err != nil {
			return "", fmt.Errorf("%s: %q: %w", daemon, line, err)
		}
		var code byte
		if answer, code, err = readAnswer(c); err != nil {
			return "", fmt.Errorf("%s: %q: %w", daemon, line, err)
		}
		if code != 0 {
			return "", fmt.Errorf("%s: %q: %w: code %d: %s", daemon, line, ErrCommand, code, strings.TrimSpace(answer))
		}
	}
	return answer, nil
}

func readAnswer(c net.Conn) (string, byte, error) {
	var all []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.Read(buffer)
		all = append(all, buffer[:n]...)
		if l := len(all); l >= 4 && bytes.Equal(all[l-4:l-1], []byte{0, 0, 0}) {
			return string(all[:l-4]), all[l-1], nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}
