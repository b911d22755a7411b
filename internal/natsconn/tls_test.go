package natsconn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// authority signs certificates of a test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, a.key = a.sign(a.cert, nil)
	return a
}

// sign writes a certificate, and its key beside it as .key.
func (a *authority) sign(c *x509.Certificate, by *ecdsa.PrivateKey) (file string, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	file = filepath.Join(a.t.TempDir(), "cert")
	for path, block := range map[string]*pem.Block{file: {Type: "CERTIFICATE", Bytes: der}, file + ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return file, key
}

// leaf is a certificate for host that ends at end.
func (a *authority) leaf(host string, end time.Time) (file string) {
	file, _ = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.ParseIP(host)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.key)
	return file
}

// serve starts a server that shows cert and asks clients for one of a's.
func (a *authority) serve(cert string) (url string) {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, cert+".key")
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(a.file); err != nil || !pool.AppendCertsFromPEM(text) {
		a.t.Fatal(err)
	}
	return testenv.OwnNATS(a.t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		o.TLSTimeout = 5
	}).URL()
}

func TestDial_ChecksCertificatesBothWays(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	client := ours.leaf("127.0.0.1", later)
	good := natsconn.Config{URL: ours.serve(ours.leaf("127.0.0.1", later)), CA: ours.file, Cert: client, Key: client + ".key"}
	nc, err := good.Dial("test", "")
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	for name, tt := range map[string]struct {
		change func(*natsconn.Config)
		want   string // empty where the server hangs up, before or after it says why
	}{
		"another authority":     {func(c *natsconn.Config) { c.CA = theirs.file }, "certificate signed by unknown authority"},
		"no client certificate": {func(c *natsconn.Config) { c.Cert, c.Key = "", "" }, ""},
		"an expired one":        {func(c *natsconn.Config) { c.URL = ours.serve(ours.leaf("127.0.0.1", time.Now().Add(-time.Minute))) }, "expired"},
		"another host's":        {func(c *natsconn.Config) { c.URL = ours.serve(ours.leaf("127.0.0.2", later)) }, "127.0.0.2, not 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			tt.change(&c)
			nc, err := c.Dial("test", "")
			if err == nil {
				nc.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial = %v, want %q", err, tt.want)
			}
		})
	}
}
