package crash

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/provider"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/proc"
)

const (
	adminToken   = "crash-admin"
	startTimeout = 90 * time.Second
)

// here is the machine itself: no network namespace is entered.
type here struct{}

func (here) Name() string                 { return "here" }
func (here) Enter() (func() error, error) { return func() error { return nil }, nil }

// plane is a control plane without controllers, on loopback ports.
type plane struct {
	dir     string
	spawner *proc.Spawner
	units   []*proc.Unit
	url     string
	kube    *kubernetes.Clientset
}

// startPlane returns when the API server is ready and serves onelb's objects.
func startPlane(ctx context.Context, dir string, progress io.Writer) (p *plane, err error) {
	bin, err := kubebin.Build(ctx, progress)
	if err != nil {
		return nil, err
	}
	p = &plane{dir: dir, spawner: proc.NewSpawner("crash", append(os.Environ(), "HOME="+dir))}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return p, err
	}
	if err := p.writeFiles(); err != nil {
		return p, err
	}
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	etcd := p.unit("etcd", filepath.Join(bin, "etcd"),
		"--name=crash", "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=crash="+peer)
	key := filepath.Join(dir, "sa.key")
	api := p.unit("kube-apiserver", filepath.Join(bin, "kube-apiserver"),
		"--etcd-servers="+client, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[2]),
		// Nobody is to find it, and a loopback address may not be advertised.
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112", "--authorization-mode=RBAC",
		"--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--cert-dir="+filepath.Join(dir, "certs"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--disable-admission-plugins=ServiceAccount", "--event-ttl=10m")
	p.url = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	if p.kube, err = kubernetes.NewForConfig(p.config()); err != nil {
		return p, err
	}
	for _, u := range []*proc.Unit{etcd, api} {
		if err := u.Start(); err != nil {
			return p, err
		}
	}
	return p, p.prepare(ctx)
}

// config is the administrator's, past the gate.
func (p *plane) config() *rest.Config {
	return &rest.Config{
		Host: p.url, BearerToken: adminToken, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, // loopback, and the certificate is the server's own
	}
}

func (p *plane) unit(name, path string, args ...string) *proc.Unit {
	u := p.spawner.NewUnit(here{}, proc.Spec{Name: name, Path: path, Args: args, Log: filepath.Join(p.dir, name+".log")})
	p.units = append(p.units, u)
	return u
}

func (p *plane) writeFiles() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return errors.Join(
		os.WriteFile(filepath.Join(p.dir, "sa.key"), block, 0o600),
		os.WriteFile(filepath.Join(p.dir, "tokens.csv"), []byte(adminToken+",admin,admin,system:masters\n"), 0o600))
}

// prepare waits for the API server and makes the custom resources and the namespaces.
func (p *plane) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	api := p.kube.Discovery().RESTClient()
	err := poll(ctx, 100*time.Millisecond, "the API server", func(ctx context.Context) error {
		_, err := api.Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
	if err != nil {
		return err
	}
	root, err := kubebin.ModuleRoot()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "manifests", "base", "crds", "*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		body, err := yaml.YAMLToJSON(text)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		err = api.Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").
			SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: provider.Namespace}}
	if _, err := p.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	return poll(ctx, 100*time.Millisecond, "the custom resources", func(ctx context.Context) error {
		for _, what := range []string{"virtualips", "addresspools"} {
			if _, err := api.Get().AbsPath("/apis/onelb.io/v1alpha1/" + what).DoRaw(ctx); err != nil {
				return err
			}
		}
		_, err := p.kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err
	})
}

func (p *plane) close() error {
	var errs []error
	for _, u := range p.units {
		errs = append(errs, u.Kill())
	}
	p.spawner.Close()
	return errors.Join(errs...)
}

// freePorts are ports that nobody listened on a moment ago.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// poll calls f until it succeeds; the error names what was waited for.
func poll(ctx context.Context, every time.Duration, what string, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}
