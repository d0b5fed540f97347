package provider

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/provider/one"
)

// fakeAccess is a client whose standing a test sets.
type fakeAccess struct {
	mu       sync.Mutex // guards all below
	access   one.Access
	token    one.Token
	tokenErr error
	tokens   int // calls of Token
	checks   int
}

// set changes it under the eyes of a watch that runs.
func (f *fakeAccess) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// count reads one of the counters.
func (f *fakeAccess) count(n *int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *n
}

func (f *fakeAccess) Access() one.Access {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.access
}

func (f *fakeAccess) Credentials() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token.Digest
}

func (f *fakeAccess) Check(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks++
	return "", f.access.Refused
}

func (f *fakeAccess) Token(context.Context) (one.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens++
	return f.token, f.tokenErr
}

// watching runs a watch in a bubble; events returns the reasons since the last call.
func watching(t *testing.T, f *fakeAccess) (events func() []string) {
	t.Helper()
	recorder := record.NewFakeRecorder(100)
	w := &accessWatch{client: f, recorder: recorder, about: &corev1.ObjectReference{Kind: "Lease", Name: FencingLease}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return func() []string {
		synctest.Wait()
		var out []string
		for {
			select {
			case e := <-recorder.Events:
				out = append(out, strings.Fields(e)[1])
			default:
				return out
			}
		}
	}
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: events %v, want %v", what, got, want)
	}
}

func TestAccessEventsOnTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAccess{}
		events := watching(t, f)
		time.Sleep(5 * time.Minute)
		want(t, "all is well", events())
		f.set(func() { f.access.Credentials, f.access.CAFile = errors.New("half-written"), errors.New("no PEM") })
		time.Sleep(5 * time.Minute)
		want(t, "both files", events(), ReasonCredentialsUnusable, ReasonCAFileUnusable)
		f.set(func() { f.access.CAFile = nil })
		time.Sleep(5 * time.Minute)
		want(t, "the CA file is right again", events(), ReasonAccessRestored)
		f.set(func() { f.access.Refused = errors.New("refused") })
		time.Sleep(5 * time.Minute)
		want(t, "refused", events(), ReasonCredentialsRefused)
		if f.count(&f.checks) < 5 || f.count(&f.checks) > 15 {
			t.Errorf("%d checks in five minutes", f.count(&f.checks))
		}
		f.set(func() { f.access = one.Access{} })
		time.Sleep(time.Minute)
		want(t, "accepted", events(), ReasonAccessRestored, ReasonAccessRestored)
	})
}

func TestTokenEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAccess{token: one.Token{Digest: "password"}}
		events := watching(t, f)
		time.Sleep(24*time.Hour + time.Second)
		want(t, "a password", events())
		if f.count(&f.tokens) != 25 {
			t.Errorf("%d calls in a day, want one an hour", f.count(&f.tokens))
		}

		// A token of 9 hours, seen at once although the next call is an hour away.
		f.set(func() { f.token = one.Token{Digest: "a", Expires: time.Now().Add(9 * time.Hour)} })
		time.Sleep(5*time.Hour + 50*time.Minute)
		want(t, "a third is not yet left", events())
		time.Sleep(20 * time.Minute)
		want(t, "a third is left", events(), ReasonTokenExpires)
		time.Sleep(100 * time.Minute)
		want(t, "between", events())
		time.Sleep(20 * time.Minute)
		want(t, "the last hour", events(), ReasonTokenExpires)
		f.set(func() { f.tokenErr, f.tokens = errors.New("refused"), 0 })
		time.Sleep(time.Hour)
		if f.count(&f.tokens) < 30 || f.count(&f.tokens) > 61 {
			t.Errorf("%d calls in an hour without an answer", f.count(&f.tokens))
		}
		want(t, "over", events(), ReasonTokenExpired)
		f.set(func() { f.tokenErr = nil })
		f.set(func() { f.token = one.Token{Digest: "b", Expires: time.Now().Add(365 * 24 * time.Hour)} })
		time.Sleep(350 * 24 * time.Hour)
		want(t, "renewed", events())
		time.Sleep(9 * 24 * time.Hour)
		want(t, "a week before", events(), ReasonTokenExpires)
		f.set(func() { f.token = one.Token{Digest: "c", Expires: time.Now().Add(10 * time.Minute)} })
		time.Sleep(time.Minute)
		want(t, "short", events(), ReasonTokenExpires)
	})
}

func TestFillUID(t *testing.T) {
	ref := &corev1.ObjectReference{Namespace: Namespace, Name: FencingLease}
	if err := fillUID(t.Context(), fake.NewClientset(), ref); err == nil {
		t.Error("no Lease is no error")
	}
	kube := fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: FencingLease, UID: "u"}})
	if err := fillUID(t.Context(), kube, ref); err != nil || ref.UID != "u" {
		t.Errorf("%+v, %v", ref, err)
	}
}
