package outbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/outbox"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// lab is an outbox and a stream of one test's own.
type lab struct {
	t      testing.TB
	db     *pgxpool.Pool
	nats   string // URL
	js     jetstream.JetStream
	stream jetstream.StreamConfig
	prefix string // of every subject
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return newLabOn(t, testenv.NATSURL(t))
}

func newLabOn(t testing.TB, natsURL string) *lab {
	t.Helper()
	l := &lab{t: t, db: testenv.Database(t), nats: natsURL, prefix: testenv.Subject(t)}
	nc, err := nats.Connect(natsURL, nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if l.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	l.stream = streams.Default()
	l.stream.Name, l.stream.Subjects = strings.ToUpper(l.prefix), []string{l.prefix + ".>"}
	l.stream.Retention = jetstream.LimitsPolicy // so that tests can read what was stored
	t.Cleanup(func() {
		_ = l.js.DeleteStream(context.Background(), l.stream.Name) // the server may be gone: it is the test's own then
	})
	return l
}

func (l *lab) dial() (*nats.Conn, error) {
	return nats.Connect(l.nats, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
}

// relay starts a relay and returns a function that stops it and waits.
func (l *lab) relay(change ...func(*outbox.RelayConfig)) (stop func()) {
	l.t.Helper()
	cfg := outbox.RelayConfig{Streams: []jetstream.StreamConfig{l.stream}, Logger: slog.New(slog.NewTextHandler(testWriter{l.t}, nil))}
	for _, f := range change {
		f(&cfg)
	}
	r, err := outbox.NewRelay(l.db.Config().ConnConfig, l.dial, cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("relay: %v", err)
		}
	}
	l.t.Cleanup(stop)
	return stop
}

// testWriter shows the relay's log when the test fails.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// exec runs one statement.
func (l *lab) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(context.Background(), sql, args...); err != nil {
		l.t.Fatalf("exec %.60s: %v", sql, err)
	}
}

// ask returns the one value of a query.
func ask[T any](l *lab, sql string, args ...any) (v T) {
	l.t.Helper()
	if err := l.db.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		l.t.Fatalf("query %.60s: %v", sql, err)
	}
	return v
}

// insert adds n messages {"n": from…} in one statement.
func (l *lab) insert(from, n int) {
	l.t.Helper()
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) SELECT $1, json_build_object('n', i) FROM generate_series($2::int, $3::int) i`,
		l.prefix+".x", from, from+n-1)
}

// caughtUp reports whether nothing is pending.
func (l *lab) caughtUp() bool {
	return ask[int](l, `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'pending'`) == 0
}

func (l *lab) waitCaughtUp() {
	l.t.Helper()
	testenv.Eventually(l.t, "the relay to catch up", l.caughtUp)
}

// stored returns every message of the stream, in order.
func (l *lab) stored() []jetstream.Msg {
	l.t.Helper()
	ctx := l.t.Context()
	s, err := l.js.Stream(ctx, l.stream.Name)
	if err != nil {
		l.t.Fatal(err)
	}
	n := int(s.CachedInfo().State.Msgs)
	c, err := l.js.OrderedConsumer(ctx, l.stream.Name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		l.t.Fatal(err)
	}
	msgs := make([]jetstream.Msg, 0, n)
	// A new leader may take a moment to serve the consumer.
	testenv.Eventually(l.t, "the stream's messages", func() bool {
		batch, err := c.Fetch(min(n-len(msgs), 5000), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return n == 0
		}
		for m := range batch.Messages() {
			msgs = append(msgs, m)
		}
		return len(msgs) == n
	})
	return msgs
}

// bodies returns the stored bodies.
func (l *lab) bodies() []string {
	l.t.Helper()
	var list []string
	for _, m := range l.stored() {
		list = append(list, string(m.Data()))
	}
	return list
}

// numbers returns {"n" : from} … as the database renders them.
func numbers(from, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"n" : %d}`, from+i)
	}
	return list
}
