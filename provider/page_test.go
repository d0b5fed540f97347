package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/onelb/onelb/provider/page"
)

// TestPageIsForThoseWhoMay: nobody gets anything of the page without being asked
// who they are, and may get what the API server lets them get.
func TestPageIsForThoseWhoMay(t *testing.T) {
	s := serving{
		authn: &server.AuthenticationInfo{Authenticator: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			switch r.Header.Get("Authorization") {
			case "":
				return nil, false, nil
			case "Bearer broken":
				return nil, false, errors.New("the API server is away")
			}
			return &authenticator.Response{User: &user.DefaultInfo{Name: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}}, true, nil
		})},
		authz: &server.AuthorizationInfo{Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.IsResourceRequest() || a.GetVerb() != "get" {
				return authorizer.DecisionNoOpinion, "", nil
			}
			switch viewer := strings.HasPrefix(a.GetPath(), page.Path); {
			case a.GetUser().GetName() == "admin", a.GetUser().GetName() == "viewer" && viewer:
				return authorizer.DecisionAllow, "", nil
			case a.GetUser().GetName() == "unlucky":
				return authorizer.DecisionNoOpinion, "", errors.New("the API server is away")
			}
			return authorizer.DecisionNoOpinion, "", nil
		})},
	}
	h := s.guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	for _, tt := range []struct {
		token, path string
		want        int
	}{
		{"", "/", http.StatusUnauthorized},
		{"", page.Path, http.StatusUnauthorized},
		{"", page.Path + "data/report.json", http.StatusUnauthorized},
		{"", page.DumpPath, http.StatusUnauthorized},
		{"broken", page.Path, http.StatusUnauthorized},
		{"stranger", page.Path, http.StatusForbidden},
		{"unlucky", page.Path, http.StatusInternalServerError},
		{"viewer", page.Path, http.StatusOK},
		{"viewer", page.Path + "data/report.json", http.StatusOK},
		{"viewer", page.DumpPath, http.StatusForbidden},
		{"viewer", page.Path + "../debug/dump", http.StatusOK}, // which the page's own mux redirects
		{"admin", page.DumpPath, http.StatusOK},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		if tt.token != "" {
			r.Header.Set("Authorization", "Bearer "+tt.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want || (w.Code == http.StatusOK) != strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%q %s: %d, want %d: %s", tt.token, tt.path, w.Code, tt.want, w.Body)
		}
	}
}

func TestPageNeedsTheSecurePort(t *testing.T) {
	c := &Cloud{options: Options{PagePort: 1}}
	if err := c.servePage(t.Context(), &parts{}, ""); !errors.Is(err, errNoSecurePort) {
		t.Errorf("%v", err)
	}
}

func TestPageURL(t *testing.T) {
	for _, tt := range []struct{ listening, apiServer, want string }{
		{"10.30.0.1:10261", "https://10.30.0.1:6443", "https://10.30.0.1:10261/onelb/"},
		{"[::]:10261", "https://127.0.0.1:6443", "https://127.0.0.1:10261/onelb/"},
		{"0.0.0.0:10261", "https://[::1]:6443", "https://[::1]:10261/onelb/"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.listening)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pageURL(t.Context(), addr, tt.apiServer); err != nil || got != tt.want {
			t.Errorf("%s: %s %v, want %s", tt.listening, got, err, tt.want)
		}
	}
}

func TestAnnotationsOfThePageGoWithItsLeader(t *testing.T) {
	kube := fake.NewClientset(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: FencingLease, Annotations: map[string]string{"others": "stay"}}})
	lease := func() map[string]string {
		l, err := kube.CoordinationV1().Leases(Namespace).Get(t.Context(), FencingLease, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return l.Annotations
	}
	want := map[string]string{page.Annotation: "https://10.30.0.1:10261/onelb/", page.CertificateAnnotation: "ab"}
	for range 2 {
		if err := annotate(t.Context(), kube, want); err != nil {
			t.Fatal(err)
		}
	}
	if got := lease(); got[page.Annotation] != want[page.Annotation] || got[page.CertificateAnnotation] != "ab" || got["others"] != "stay" {
		t.Errorf("%v", got)
	}
	updates := 0
	for _, a := range kube.Actions() {
		if a.GetVerb() == "update" {
			updates++
		}
	}
	if updates != 1 {
		t.Errorf("%d updates, want one", updates)
	}
	if _, err := nextToken(t.Context(), kube, "node-2"); err != nil {
		t.Fatal(err)
	}
	if got := lease(); len(got) != 1 || got["others"] != "stay" {
		t.Errorf("of the leader before: %v", got)
	}
}
