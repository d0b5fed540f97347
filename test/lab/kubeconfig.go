package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// APIServerURL is where the API server is, seen from the management network.
func APIServerURL() string {
	return fmt.Sprintf("https://%s:%d", ControlAddr, APIServerPort)
}

// Kubeconfig is the administrator's kubeconfig for programs inside the lab's
// namespaces, and HostKubeconfig the one for the machine the lab runs on.
func (l *Lab) Kubeconfig() string { return l.path("admin.kubeconfig") }

// HostKubeconfig is the administrator's kubeconfig for the machine the lab runs
// on. It leads through a loopback port that the lab forwards.
func (l *Lab) HostKubeconfig() string { return l.path("kubeconfig") }

// writeKubeconfig writes a kubeconfig for the user to path.
func (l *Lab) writeKubeconfig(path, server string, user clientcmdapi.AuthInfo) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: l.pki.ca.cert}
	config.AuthInfos["lab"] = &user
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: "lab"}
	config.CurrentContext = "lab"
	content, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return writeFileAtomic(path, content)
}

// certUser makes a client certificate and writes a kubeconfig that uses it.
func (l *Lab) certUser(path, user, group string) error {
	p, err := l.pki.ca.client(l.pki.dir, user, group)
	if err != nil {
		return err
	}
	return l.writeKubeconfig(path, APIServerURL(), clientcmdapi.AuthInfo{
		ClientCertificateData: p.cert, ClientKeyData: p.key,
	})
}

// dialer opens connections from inside a namespace.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// RESTConfig is the administrator's client configuration for code in this
// process; connections start on the given host.
func (l *Lab) RESTConfig(from *Host) (*rest.Config, error) { return l.restConfig(from) }

func (l *Lab) restConfig(from dialer) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.Dial = from.DialContext
	// The lab itself must not be what is slow.
	config.QPS, config.Burst = 1000, 2000
	return config, nil
}

// clientFrom makes a client whose connections start on the given host.
func (l *Lab) clientFrom(from dialer, timeout time.Duration) (*kubernetes.Clientset, error) {
	config, err := l.restConfig(from)
	if err != nil {
		return nil, err
	}
	config.Timeout = timeout
	return kubernetes.NewForConfig(config)
}

// writeFileAtomic replaces a file in one step, as kubelet does with a mounted
// secret: a reader sees the old content or the new.
func writeFileAtomic(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
