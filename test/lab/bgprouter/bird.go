package bgprouter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/proc"
)

// BIRD is the other router.
type BIRD struct {
	o    Options
	unit *proc.Unit
}

// StartBIRD starts BIRD with a configuration.
func StartBIRD(ctx context.Context, o Options, config string) (*BIRD, error) {
	cache, err := kubebin.CacheDir()
	if err != nil {
		return nil, err
	}
	program, err := debian.Find(ctx, cache, "bird", "bird2")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	b := &BIRD{o: o}
	if err := os.WriteFile(b.path("bird.conf"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	b.unit = o.Spawner.NewUnit(o.Host, proc.Spec{
		Name: o.Name + "-bird", Path: program.Path, Env: program.Env(), Log: b.path("bird.log"),
		Args: []string{"-f", "-c", b.path("bird.conf"), "-s", b.path("bird.ctl"), "-P", b.path("bird.pid")},
	})
	if err := b.unit.Start(); err != nil {
		return nil, err
	}
	if err := b.await(ctx); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *BIRD) path(name string) string { return filepath.Join(b.o.Dir, name) }

func (b *BIRD) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := b.Show(ctx, "show status")
		if err == nil {
			return nil
		}
		if !b.unit.Running() {
			return fmt.Errorf("bird ended: %w; its last lines:\n%s", b.unit.Err(), b.unit.Tail(15))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bird does not take commands: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends BIRD at once, without a word to anybody.
func (b *BIRD) Stop() error { return b.unit.Kill() }

// Show is BIRD's answer to a command of birdc, without the codes of its lines.
func (b *BIRD) Show(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", b.path("bird.ctl"))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewScanner(c)
	if !lines.Scan() { // the greeting
		return "", fmt.Errorf("bird: no greeting: %w", lines.Err())
	}
	if _, err := fmt.Fprintln(c, command); err != nil {
		return "", fmt.Errorf("bird: %q: %w", command, err)
	}
	return birdAnswer(command, lines)
}

// birdAnswer reads lines with codes of four digits: a dash after the code, or a
// blank before the text, means that there is more. Codes from 8000 on are errors.
func birdAnswer(command string, lines *bufio.Scanner) (string, error) {
	var out strings.Builder
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, " ") || len(line) < 5 {
			fmt.Fprintln(&out, strings.TrimPrefix(line, " "))
			continue
		}
		fmt.Fprintln(&out, line[5:])
		switch {
		case line[0] >= '8':
			return "", fmt.Errorf("bird: %q: %w: %s", command, ErrCommand, line)
		case line[4] == ' ':
			return out.String(), nil
		}
	}
	return "", fmt.Errorf("bird: %q: the answer has no end: %w", command, lines.Err())
}
