package integration_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// binary builds jetbox once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("jetbox-test-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", path, "../cmd/jetbox")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// lab is a database, a stream, a handler and real jetbox processes of one test's
// own. The handler writes to effect, which has no unique constraint.
type lab struct {
	t      *testing.T
	dir    string
	db     *pgxpool.Pool
	url    string // of the database
	js     jetstream.JetStream
	stream string
	prefix string // of every subject
}

const handlerSQL = `
CREATE SCHEMA app;
CREATE TABLE app.effect (n int NOT NULL);
CREATE FUNCTION app.handle(m jetbox.message) RETURNS json LANGUAGE sql AS $$
	INSERT INTO app.effect VALUES ((m.payload->>'n')::int);
	SELECT json_build_object('handled', m.payload->'n')
$$`

func newLab(t *testing.T) *lab {
	t.Helper()
	l := newBareLab(t)
	l.stream = strings.ToUpper(l.prefix)
	var err error
	if l.js, err = jetstream.New(testenv.NATS(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.js.DeleteStream(context.Background(), l.stream); err != nil {
			t.Errorf("delete stream: %v", err)
		}
	})
	l.exec(handlerSQL)
	l.configure("2s")
	return l
}

// newBareLab has neither a broker nor a file: its processes run as they do for
// whoever has configured nothing.
func newBareLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), db: testenv.Database(t), prefix: testenv.Subject(t)}
	cfg := l.db.Config().ConnConfig
	l.url = (&url.URL{
		Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password),
		Host: fmt.Sprintf("%s:%d", cfg.Host, cfg.Port), Path: cfg.Database, RawQuery: "sslmode=disable",
	}).String()
	l.write("")
	return l
}

// write makes text the jetbox.yaml.
func (l *lab) write(text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, "jetbox.yaml"), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// configure writes a jetbox.yaml with the handler.
func (l *lab) configure(ackWait string) {
	l.t.Helper()
	l.write(fmt.Sprintf(`
relay:
  lease: 1s
streams:
  - name: %[1]s
    subjects: ["%[2]s.>"]
worker:
  stream: %[1]s
  consumer: w
  ack_wait: %[3]s
  handlers:
    - subject: %[2]s.x
      sql: app.handle
`, l.stream, l.prefix, ackWait))
}

// start starts `jetbox verb` against the NATS server at broker.
func (l *lab) start(verb, name, broker string) *process.Process {
	l.t.Helper()
	exe, err := binary()
	if err != nil {
		l.t.Fatal(err)
	}
	p := &process.Process{
		Name: name, Executable: exe, Args: []string{verb}, Log: filepath.Join(l.dir, name+".log"),
		Env: append(os.Environ(), "DATABASE_URL="+l.url, "NATS_URL="+broker, "HTTP_ADDR=127.0.0.1:0",
			"JETBOX_CONFIG="+filepath.Join(l.dir, "jetbox.yaml")),
	}
	if err := p.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			l.t.Error(err)
		}
		if l.t.Failed() {
			l.t.Log(p.Tail())
		}
	})
	return p
}

// proxy stands before the shared NATS server.
func (l *lab) proxy() (p *proxy.Proxy, broker string) {
	l.t.Helper()
	u, err := url.Parse(testenv.NATSURL(l.t))
	if err != nil {
		l.t.Fatal(err)
	}
	if p, err = proxy.Listen(u.Host); err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	u.Host = p.Addr()
	return p, u.String()
}

// kill ends p without a chance to do more, and drops what the link held.
func (l *lab) kill(p *process.Process, link *proxy.Proxy) {
	l.t.Helper()
	if err := p.Kill(); err != nil {
		l.t.Fatal(err)
	}
	link.Cut()
	link.Release(proxy.ToServer)
	link.Release(proxy.ToClient)
}

func (l *lab) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(context.Background(), sql, args...); err != nil {
		l.t.Fatalf("exec %.60s: %v", sql, err)
	}
}

func (l *lab) count(sql string, args ...any) (n int) {
	l.t.Helper()
	if err := l.db.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		l.t.Fatalf("query %.60s: %v", sql, err)
	}
	return n
}

// insert enqueues {"n": from} … in one statement.
func (l *lab) insert(from, n int) {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.outbox (subject, key, payload)
		SELECT $1, (i % 7)::text, json_build_object('n', i) FROM generate_series($2::int, $3::int) i`,
		l.prefix+".x", from, from+n-1)
}

// eventually waits until a query counts n.
func (l *lab) eventually(n int, sql string, args ...any) {
	l.t.Helper()
	testenv.Eventually(l.t, fmt.Sprintf("%d from %.90s", n, sql), func() bool { return l.count(sql, args...) == n })
}

// handled waits until each of n messages has its effect and nothing is on its
// way any more, then checks that none has two.
func (l *lab) handled(n int) {
	l.t.Helper()
	l.eventually(n, `SELECT count(DISTINCT n) FROM app.effect`)
	testenv.Eventually(l.t, "the stream to be empty", func() bool { return l.waiting() == 0 })
	if got := l.count(`SELECT count(*) FROM app.effect`); got != n {
		l.t.Errorf("%d effects of %d messages", got, n)
	}
	if got := l.count(`SELECT count(*) FROM jetbox.inbox WHERE result IS NOT NULL`); got != n {
		l.t.Errorf("%d results of %d messages", got, n)
	}
	l.eventually(0, `SELECT count(*) FROM jetbox.outbox_status WHERE state <> 'sent'`)
}

func (l *lab) info() jetstream.StreamState {
	s, err := l.js.Stream(l.t.Context(), l.stream)
	if err != nil {
		return jetstream.StreamState{} // not made yet
	}
	return s.CachedInfo().State
}

func (l *lab) waiting() uint64 { return l.info().Msgs }
