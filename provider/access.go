package provider

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/provider/one"
)

// Reasons of events about the access to OpenNebula. They are about the Lease
// onelb-fencing in namespace onelb-system, which the leader has written at its
// start whatever its flags are. Reference: docs/reference/events.md.
const (
	// ReasonCredentialsUnusable: the credentials on disk are unreadable, half-written or
	// refused; those before them are still used.
	ReasonCredentialsUnusable = "CredentialsUnusable"
	// ReasonCAFileUnusable: the CA file on disk is unreadable, half-written or no PEM file;
	// what it held before is still used.
	ReasonCAFileUnusable = "CAFileUnusable"
	// ReasonCredentialsRefused: OpenNebula accepts none of the credentials there are.
	ReasonCredentialsRefused = "CredentialsRefused"
	// ReasonAccessRestored: what one of the events above was about is over.
	ReasonAccessRestored = "AccessRestored"
	// ReasonTokenExpires: the login token in use will expire soon.
	ReasonTokenExpires = "TokenExpires"
	// ReasonTokenExpired: the login token in use has expired.
	ReasonTokenExpired = "TokenExpired"
)

// The pace of looking after the access to OpenNebula.
const (
	accessInterval = 10 * time.Second // of looking at the files and at what calls have met
	refusedRetry   = 30 * time.Second // of asking whether we are accepted again, if nobody else does
	tokenInterval  = time.Hour        // of asking when the token expires; more often near its end
	tokenSoonest   = time.Minute
)

// When an operator hears that the token expires: when a third of the time that it
// had when it was first seen is left, so that a token of 10 hours that a job renews
// each 5 hours gives no event; but not before a week, and not later than an hour
// before the end; and then again an hour before it.
const (
	warnShare = 3
	warnMost  = 7 * 24 * time.Hour
	warnLast  = time.Hour
)

// accessClient is what the watch asks. *one.Client implements it.
type accessClient interface {
	Access() one.Access
	Credentials() string
	Check(ctx context.Context) (string, error)
	Token(ctx context.Context) (one.Token, error)
}

// accessWatch tells operators what is wrong with the access to OpenNebula, on
// transitions.
type accessWatch struct {
	client   accessClient
	recorder record.EventRecorder
	about    runtime.Object

	credentials, caFile, refused string // what was last told; empty: nothing is wrong
	nextCheck                    time.Time

	token     one.Token
	seen      time.Duration // what the token had left when it was first seen
	told      tokenStage
	asked     string // digest of the credentials at the last question
	nextToken time.Time
}

// tokenStage grows as the token's end comes nearer.
type tokenStage int

const (
	tokenFine tokenStage = iota
	tokenEnding
	tokenLastHour
	tokenOver
)

// watchAccess runs until ctx ends.
func (c *Cloud) watchAccess(ctx context.Context, p *parts) {
	lease, err := fencingLease(ctx, p)
	if err != nil {
		return // ctx has ended
	}
	w := &accessWatch{client: c.one, recorder: p.recorder, about: lease}
	w.run(ctx)
}

// fencingLease is what events about parts outside of the cluster are about. An
// error says that ctx has ended.
func fencingLease(ctx context.Context, p *parts) (*corev1.ObjectReference, error) {
	lease := &corev1.ObjectReference{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: Namespace, Name: FencingLease}
	err := retry(ctx, "the Lease that events are about", func(ctx context.Context) error { return fillUID(ctx, p.kube, lease) })
	return lease, err
}

// fillUID completes a reference: `kubectl describe` finds events by the UID.
func fillUID(ctx context.Context, kube kubernetes.Interface, ref *corev1.ObjectReference) error {
	l, err := kube.CoordinationV1().Leases(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	ref.UID = l.UID
	return nil
}

func (w *accessWatch) run(ctx context.Context) {
	ticker := time.NewTicker(accessInterval)
	defer ticker.Stop()
	for {
		w.look(ctx)
		w.lookToken(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look at the files and at what calls have met.
func (w *accessWatch) look(ctx context.Context) {
	a := w.client.Access()
	if a.Refused != nil && !time.Now().Before(w.nextCheck) {
		// Nobody else may be calling.
		w.nextCheck = time.Now().Add(refusedRetry)
		if _, err := w.client.Check(ctx); err != nil {
			klog.FromContext(ctx).V(2).Info("OpenNebula still refuses our credentials", "err", err)
		}
		a = w.client.Access()
	}
	w.transition(&w.credentials, a.Credentials, ReasonCredentialsUnusable,
		"%s; the credentials before them are used for as long as OpenNebula accepts them", "The credentials on disk are used")
	w.transition(&w.caFile, a.CAFile, ReasonCAFileUnusable,
		"%s; what the file held before is still used", "The CA file on disk is used")
	w.transition(&w.refused, a.Refused, ReasonCredentialsRefused,
		"%s. Meanwhile no Node is deleted and no address is given up; Services get addresses from what is reserved ahead", "OpenNebula accepts our credentials")
}

// transition sends an event when something goes wrong, goes wrong differently,
// or is right again.
func (w *accessWatch) transition(told *string, err error, reason, wrong, right string) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	switch now {
	case *told:
	case "":
		w.recorder.Event(w.about, corev1.EventTypeNormal, ReasonAccessRestored, right)
	default:
		w.recorder.Eventf(w.about, corev1.EventTypeWarning, reason, wrong, now)
	}
	*told = now
}

// lookToken asks slowly when the token expires, and at once after the credentials
// have changed.
func (w *accessWatch) lookToken(ctx context.Context) {
	now := w.client.Credentials()
	if now == w.asked && time.Now().Before(w.nextToken) {
		w.tell()
		return
	}
	w.asked = now
	t, err := w.client.Token(ctx)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot find out when the login token expires", "err", err)
		w.nextToken = time.Now().Add(tokenSoonest)
		w.tell()
		return
	}
	left := time.Until(t.Expires)
	if t != w.token {
		w.token, w.seen, w.told = t, left, tokenFine
	}
	w.nextToken = time.Now().Add(tokenInterval)
	if !t.Expires.IsZero() {
		w.nextToken = time.Now().Add(min(max(left/10, tokenSoonest), tokenInterval))
	}
	w.tell()
}

// tell sends an event for each stage once.
func (w *accessWatch) tell() {
	stage := w.stage()
	if stage <= w.told {
		return
	}
	w.told = stage
	at := w.token.Expires.UTC().Format(time.RFC3339)
	if stage == tokenOver {
		w.recorder.Eventf(w.about, corev1.EventTypeWarning, ReasonTokenExpired, "The login token has expired at %s: write a new one into the credentials (oneuser token-create)", at)
		return
	}
	w.recorder.Eventf(w.about, corev1.EventTypeWarning, ReasonTokenExpires, "The login token expires at %s: write a new one into the credentials (oneuser token-create), no restart is needed", at)
}

func (w *accessWatch) stage() tokenStage {
	left := time.Until(w.token.Expires)
	switch {
	case w.token.Expires.IsZero():
		return tokenFine
	case left <= 0:
		return tokenOver
	case left <= warnLast:
		return tokenLastHour
	case left <= min(w.seen/warnShare, warnMost):
		return tokenEnding
	}
	return tokenFine
}
