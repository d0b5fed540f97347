package one

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// CredentialSource gives the text "user:password". It is asked before each call,
// so that rotated credentials are used at once, and must be quick.
type CredentialSource interface {
	// Read returns the current text. Its errors must not contain it.
	Read() (string, error)
	// String names the source for messages, such as "file /etc/onelb/one_auth".
	String() string
}

// CredentialFile reads credentials from a file: its first line that is not empty.
func CredentialFile(path string) CredentialSource { return credentialFile(path) }

// CredentialsIn is the source that a cloud-config names: a file or, if that is
// empty, an environment variable.
func CredentialsIn(file, env string) CredentialSource {
	if file != "" {
		return CredentialFile(file)
	}
	return CredentialEnv(env)
}

// CredentialEnv reads credentials from an environment variable.
func CredentialEnv(name string) CredentialSource { return credentialEnv(name) }

type credentialFile string

func (f credentialFile) String() string { return "file " + string(f) }

func (f credentialFile) Read() (string, error) {
	b, err := os.ReadFile(string(f))
	return string(b), err
}

type credentialEnv string

func (e credentialEnv) String() string { return "environment variable " + string(e) }

func (e credentialEnv) Read() (string, error) {
	v, ok := os.LookupEnv(string(e))
	if !ok {
		return "", errors.New("it is not set")
	}
	return v, nil
}

// session chooses the credentials of each call.
type session struct {
	source CredentialSource

	mu       sync.Mutex // guards what follows
	last     string     // the last well-formed text of the source
	good     string     // what OpenNebula accepted last
	rejected string     // what it refused while good was still accepted
}

// current returns the credentials to use. While the source is unreadable or
// half-written, the last good ones are still used: a Secret that is being
// replaced must not stop the provider. The same holds for a text that OpenNebula
// has refused, as long as it accepts the one before.
func (s *session) current() (string, error) {
	text, err := s.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.last = text
	}
	switch {
	case s.last == "":
		return "", err
	case s.last == s.rejected && s.good != "":
		return s.good, nil
	}
	return s.last, nil
}

// accepted notes that OpenNebula took these credentials.
func (s *session) accepted(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.good = text
	if text == s.last {
		s.rejected = ""
	}
}

// refused notes that OpenNebula did not take these credentials, and returns
// others that are worth a try: those that the source has got meanwhile, or else
// those that were accepted before. Empty: there are none.
func (s *session) refused(text string) string {
	now, err := s.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.last = now
	}
	switch {
	case text == s.good: // they worked before, and no longer do
		s.good, s.rejected = "", ""
	case text == s.last && s.good != "":
		s.rejected = text
		return s.good
	}
	if s.last != text {
		return s.last
	}
	return ""
}

// problem says why what the source has now is not what is used; nil if it is.
func (s *session) problem() error {
	if _, err := s.read(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rejected != "" && s.rejected == s.last {
		return fmt.Errorf("OpenNebula refuses the credentials from %s", s.source)
	}
	return nil
}

func (s *session) read() (string, error) {
	raw, err := s.source.Read()
	if err != nil {
		return "", fmt.Errorf("OpenNebula credentials from %s: %w", s.source, err)
	}
	for line := range strings.Lines(raw) {
		text := strings.TrimSpace(line)
		if text == "" {
			continue
		}
		if user, password, ok := strings.Cut(text, ":"); !ok || user == "" || password == "" {
			break
		}
		return text, nil
	}
	return "", fmt.Errorf("OpenNebula credentials from %s: must be user:password on one line", s.source)
}

// describe names the source and, if it cannot be read now, why.
func (s *session) describe() string {
	if _, err := s.read(); err != nil {
		return err.Error()
	}
	return s.source.String()
}
