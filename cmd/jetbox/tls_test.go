package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// tlsServer is a Postgres of the test's own that shows a certificate.
type tlsServer struct {
	t    *testing.T
	data string
	url  *url.URL
	conn *pgx.Conn // for its settings
}

func startTLSServer(t *testing.T) tlsServer {
	t.Helper()
	dir := t.TempDir()
	p := testenv.OwnPostgres(t, dir)
	s := tlsServer{t: t, data: filepath.Join(dir, "postgres")}
	if _, err := os.Stat(s.data); err != nil {
		t.Skipf("Postgres runs elsewhere (%s): %v", p.Origin(), err)
	}
	var err error
	if s.url, err = url.Parse(p.URL()); err != nil {
		t.Fatal(err)
	}
	if s.conn, err = pgx.Connect(t.Context(), p.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	return s
}

// execute runs statements that no transaction can hold.
func (s tlsServer) execute(statements ...string) {
	s.t.Helper()
	for _, sql := range statements {
		if _, err := s.conn.Exec(s.t.Context(), sql); err != nil {
			s.t.Fatal(err)
		}
	}
}

// show makes the server show cert from soon on.
func (s tlsServer) show(cert string) {
	s.t.Helper()
	s.copy(cert, "server.crt")
	s.copy(cert+".key", "server.key")
	s.execute(`ALTER SYSTEM SET ssl = on`, `SELECT pg_reload_conf()`)
}

// copy gives the server a file of its own: it refuses the key of another.
func (s tlsServer) copy(from, name string) {
	s.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		s.t.Fatal(err)
	}
	to := filepath.Join(s.data, name)
	if err := os.WriteFile(to, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	owner := s.owner()
	if err := os.Chown(to, int(owner.Uid), int(owner.Gid)); err != nil {
		s.t.Fatal(err)
	}
}

func (s tlsServer) owner() *syscall.Stat_t {
	s.t.Helper()
	info, err := os.Stat(s.data)
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// migrate is what a first deployment does, trusting ca alone.
func (s tlsServer) migrate(host, ca, wait string) (code int, stderr string) {
	s.t.Helper()
	u := *s.url
	u.Host = host + ":" + u.Port()
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ca}, "channel_binding": {"require"}}.Encode()
	code, _, stderr = invoke(s.t, vars{"DATABASE_URL": u.String()}, "migrate", "up", "--wait", wait)
	return code, stderr
}

// refuses waits for the reason, and for the exit code of what waiting cannot help.
func (s tlsServer) refuses(host, ca, reason string) {
	s.t.Helper()
	testenv.Eventually(s.t, reason, func() bool {
		code, stderr := s.migrate(host, ca, "1m")
		return code == exitFailure && strings.Contains(stderr, reason)
	})
}

func TestDatabase_ChecksTheServersCertificate(t *testing.T) {
	t.Parallel()
	s, ours := startTLSServer(t), testenv.NewAuthority(t)
	if code, stderr := s.migrate("127.0.0.1", ours.File, "0s"); code != exitUnreachable || !strings.Contains(stderr, "server refused TLS connection") {
		t.Errorf("migrate without TLS = %d %s, want a refusal", code, stderr)
	}
	s.show(ours.Leaf("127.0.0.1", time.Now().Add(time.Hour)))
	testenv.Eventually(t, "a connection with TLS", func() bool {
		code, _ := s.migrate("127.0.0.1", ours.File, "0s")
		return code == exitOK
	})
	s.refuses("127.0.0.1", testenv.NewAuthority(t).File, "certificate signed by unknown authority")
	s.refuses("localhost", ours.File, "not valid for any names, but wanted to match localhost")
	s.show(ours.Leaf("127.0.0.1", time.Now().Add(-time.Minute)))
	s.refuses("127.0.0.1", ours.File, "certificate has expired")
}
