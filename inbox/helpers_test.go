package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv("CRASHER_DATABASE") != "" {
		fmt.Fprintln(os.Stderr, crasher())
		os.Exit(1)
	}
	testenv.Main(m)
}

// env is a database with a table for effects, and a stream, of a test's own.
type env struct {
	t      testing.TB
	db     *pgxpool.Pool
	url    string
	js     jetstream.JetStream
	stream string
	prefix string // of the stream's subjects
}

func newEnv(t testing.TB) *env {
	t.Helper()
	return newEnvOn(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy})
}

func newEnvOn(t testing.TB, cfg jetstream.StreamConfig) *env {
	t.Helper()
	cfg = testenv.Stream(t, cfg)
	e := &env{
		t: t, db: testenv.Database(t), url: testenv.NATSURL(t), stream: cfg.Name,
		prefix: strings.TrimSuffix(cfg.Subjects[0], ".>"),
	}
	var err error
	if e.js, err = jetstream.New(testenv.NATS(t)); err != nil {
		t.Fatal(err)
	}
	e.exec(effectTableSQL)
	return e
}

const effectTableSQL = `CREATE TABLE effect (n bigserial, message_id uuid NOT NULL, note text, consumer text)`

func (e *env) exec(sql string, args ...any) {
	e.t.Helper()
	if _, err := e.db.Exec(context.Background(), sql, args...); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
}

// query reads one value.
func query[T any](e *env, sql string, args ...any) T {
	e.t.Helper()
	var v T
	if err := e.db.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		e.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (e *env) subject(name string) string { return e.prefix + "." + name }

// publish stores a message as the relay would, and returns its ID.
func (e *env) publish(name, payload string, change ...func(*wire.Envelope)) uuid.UUID {
	e.t.Helper()
	envelope := wire.Envelope{ID: uuid.Must(uuid.NewV7())}
	for _, c := range change {
		c(&envelope)
	}
	e.publishRaw(&nats.Msg{Subject: e.subject(name), Header: wire.Encode(envelope), Data: []byte(payload)})
	return envelope.ID
}

func (e *env) publishRaw(m *nats.Msg) {
	e.t.Helper()
	if _, err := e.js.PublishMsg(context.Background(), m); err != nil {
		e.t.Fatalf("publish: %v", err)
	}
}

func withID(id uuid.UUID) func(*wire.Envelope) { return func(e *wire.Envelope) { e.ID = id } }

func withKey(key string) func(*wire.Envelope) { return func(e *wire.Envelope) { e.Key = key } }

// replayed is how the relay publishes a message again past the broker's
// duplicate window.
func replayed(id uuid.UUID, generation int) func(*wire.Envelope) {
	return func(e *wire.Envelope) { e.ID, e.Generation = id, generation }
}

// dial is the worker's connection.
func (e *env) dial() (*nats.Conn, error) { return nats.Connect(e.url, nats.MaxReconnects(-1)) }

// config suits tests: it fails fast.
func (e *env) config() inbox.WorkerConfig {
	return inbox.WorkerConfig{Stream: e.stream, Consumer: "w", RetryDelay: time.Millisecond, Logger: testLogger(e.t)}
}

// start runs a worker until the test ends or stop is called; stop returns what
// Run did.
func (e *env) start(cfg inbox.WorkerConfig, handlers ...inbox.Handler) (stop func()) {
	e.t.Helper()
	_, stop = e.startOn(e.db, e.dial, cfg, handlers...)
	return stop
}

func (e *env) startOn(db *pgxpool.Pool, dial inbox.Dialer, cfg inbox.WorkerConfig, handlers ...inbox.Handler) (*inbox.Worker, func()) {
	e.t.Helper()
	w, err := inbox.NewWorker(db, dial, cfg, handlers...)
	if err != nil {
		e.t.Fatalf("NewWorker: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stopped := false
	stop := func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := <-ended; err != nil {
			e.t.Errorf("Run: %v", err)
		}
	}
	e.t.Cleanup(stop)
	return w, stop
}

// eventuallySettled waits until the work queue is empty: every message was
// acknowledged or terminated.
func (e *env) eventuallySettled() {
	e.t.Helper()
	testenv.Eventually(e.t, "an empty stream", func() bool { return e.stored() == 0 })
}

func (e *env) stored() uint64 {
	e.t.Helper()
	s, err := e.js.Stream(context.Background(), e.stream)
	if err != nil {
		e.t.Fatalf("stream: %v", err)
	}
	return s.CachedInfo().State.Msgs
}

func (e *env) consumerInfo() *jetstream.ConsumerInfo {
	e.t.Helper()
	c, err := e.js.Consumer(context.Background(), e.stream, "w")
	if err != nil {
		e.t.Fatalf("consumer: %v", err)
	}
	return c.CachedInfo()
}

func (e *env) wantCount(want int, what, sql string, args ...any) {
	e.t.Helper()
	if got := query[int](e, sql, args...); got != want {
		e.t.Errorf("%s = %d, want %d", what, got, want)
	}
}

// wantEffects checks that n messages had their effect, each once, and are in
// the inbox.
func (e *env) wantEffects(n int) {
	e.t.Helper()
	e.wantCount(n, "effects", `SELECT count(*) FROM effect`)
	e.wantCount(n, "messages with an effect", `SELECT count(DISTINCT message_id) FROM effect`)
	e.wantCount(n, "rows in the inbox", `SELECT count(*) FROM jetbox.inbox`)
}

// wantNoTrace checks that nothing speaks of a failure.
func (e *env) wantNoTrace() {
	e.t.Helper()
	e.wantCount(0, "failed attempts", `SELECT count(*) FROM jetbox.failed_attempt`)
	e.wantCount(0, "dead letters", `SELECT count(*) FROM jetbox.dead_letter`)
}

// letter is a dead letter as a person sees it.
type letter struct {
	Reason, Consumer, Subject string
	Attempts                  int
	Errors                    []struct {
		Attempt int
		Error   string
	}
}

func (e *env) letter(id uuid.UUID) letter {
	e.t.Helper()
	rows, err := e.db.Query(context.Background(),
		`SELECT reason, consumer, subject, attempts, errors FROM jetbox.dead_letter WHERE message_id = $1`, id)
	if err != nil {
		e.t.Fatal(err)
	}
	l, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[letter])
	if err != nil {
		e.t.Fatalf("dead letter %s: %v", id, err)
	}
	return l
}

func contains(t testing.TB, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s = %q, want %q in it", what, got, w)
		}
	}
}

const effectSQL = `INSERT INTO effect (message_id, note) VALUES ($1, $2)`

type none struct{}

// effect is a handler whose only effect is one row.
func (e *env) effect(name string) inbox.Handler {
	return inbox.HandleTx(e.subject(name), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		_, err := tx.Exec(ctx, effectSQL, m.ID, string(m.Payload))
		return none{}, err
	})
}

var errTest = errors.New("the test's own failure")

// testLogger writes to the test's log, where -v or a failure shows it.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
