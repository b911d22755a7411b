package natsconn_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// serve starts a server that shows cert and asks clients for one of a's.
func serve(t *testing.T, a *testenv.Authority, cert string) (url string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, cert+".key")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if text, err := os.ReadFile(a.File); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	return testenv.OwnNATS(t, func(o *server.Options) {
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		o.TLSTimeout = 5
	}).URL()
}

func TestDial_ChecksCertificatesBothWays(t *testing.T) {
	t.Parallel()
	ours, theirs := testenv.NewAuthority(t), testenv.NewAuthority(t)
	later := time.Now().Add(time.Hour)
	client := ours.Leaf("127.0.0.1", later)
	good := natsconn.Config{URL: serve(t, ours, ours.Leaf("127.0.0.1", later)), CA: ours.File, Cert: client, Key: client + ".key"}
	nc, err := good.Dial("test", "")
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	for name, tt := range map[string]struct {
		change func(*natsconn.Config)
		want   string // empty where the server hangs up, before or after it says why
	}{
		"another authority":     {func(c *natsconn.Config) { c.CA = theirs.File }, "certificate signed by unknown authority"},
		"no client certificate": {func(c *natsconn.Config) { c.Cert, c.Key = "", "" }, ""},
		"an expired one":        {func(c *natsconn.Config) { c.URL = serve(t, ours, ours.Leaf("127.0.0.1", time.Now().Add(-time.Minute))) }, "expired"},
		"another host's":        {func(c *natsconn.Config) { c.URL = serve(t, ours, ours.Leaf("127.0.0.2", later)) }, "127.0.0.2, not 127.0.0.1"},
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
