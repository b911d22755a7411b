package testenv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/localenv"
)

func TestMain(m *testing.M) { Main(m) }

func TestDatabase_HearsOnlyItsOwnTest(t *testing.T) {
	t.Parallel()
	a, b := Database(t), Database(t)
	conn, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), `LISTEN c`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		`INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`, `NOTIFY c, 'from a'`,
	} {
		if _, err := a.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Exec(t.Context(), `NOTIFY c, 'from b'`); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Conn().WaitForNotification(t.Context()); err != nil || n.Payload != "from b" {
		t.Errorf("notification = %v, %v, want the one from b", n, err)
	}
	var rows int
	if err := b.QueryRow(t.Context(), `SELECT count(*) FROM jetbox.outbox`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("rows in the other database = %d, %v, want 0", rows, err)
	}
}

func TestDatabase_IsGoneAfterTheTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("the test", func(t *testing.T) {
		db := Database(t)
		name = db.Config().ConnConfig.Database
		forgotten, err := pgx.ConnectConfig(t.Context(), db.Config().ConnConfig)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = forgotten.Close(context.Background()) })
	})
	var exists bool
	err := Database(t).QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists)
	if err != nil || exists {
		t.Errorf("database %s exists = %t, %v, want false", name, exists, err)
	}
}

func TestEmptyDatabase_HasNoSchema(t *testing.T) {
	t.Parallel()
	conn, err := pgx.ConnectConfig(t.Context(), EmptyDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var exists bool
	err = conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'jetbox')`).Scan(&exists)
	if err != nil || exists {
		t.Errorf("schema exists = %t, %v, want false", exists, err)
	}
}

func TestStream_IsGoneAfterTheTest(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(NATS(t))
	if err != nil {
		t.Fatal(err)
	}
	var made jetstream.StreamConfig
	t.Run("the test", func(t *testing.T) {
		made = Stream(t, jetstream.StreamConfig{MaxMsgs: 7})
		subject := strings.TrimSuffix(made.Subjects[0], ">") + "a.b"
		if ack, err := js.Publish(t.Context(), subject, nil); err != nil || ack.Stream != made.Name {
			t.Errorf("Publish(%s) = %v, %v, want stream %s", subject, ack, err, made.Name)
		}
	})
	if _, err := js.Stream(t.Context(), made.Name); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("Stream after the test = %v, want ErrStreamNotFound", err)
	}
}

func TestOwnNATS_StopsForItsTestAlone(t *testing.T) {
	t.Parallel()
	own, shared := OwnNATS(t), NATS(t)
	nc, err := nats.Connect(own.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the connection to be lost", func() bool { return !nc.IsConnected() })
	if err := shared.Flush(); err != nil {
		t.Errorf("the shared server stopped, too: %v", err)
	}
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the connection to be back", nc.IsConnected)
}

func TestServers_MissingOnesSkipOnALaptopAndFailInCI(t *testing.T) {
	none := fmt.Errorf("postgres: %w", localenv.ErrNoPostgres)
	for name, tt := range map[string]struct {
		ci   string
		err  error
		want string
	}{
		"laptop":               {"", none, "skip"},
		"CI":                   {"true", none, "fatal"},
		"named, but no answer": {"", errors.New("connection refused"), "fatal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			l := lazy[int]{start: func(context.Context) (int, closer, error) { return 0, nil, tt.err }}
			if got := verdict(func(t testing.TB) { l.get(t) }); got != tt.want {
				t.Errorf("verdict = %q, want %q", got, tt.want)
			}
		})
	}
}

// recorder stands in for a test that must not end the real one.
type recorder struct {
	testing.TB
	verdict string
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.verdict = "fatal"; runtime.Goexit() }
func (r *recorder) Skipf(string, ...any)  { r.verdict = "skip"; runtime.Goexit() }

func verdict(test func(testing.TB)) string {
	r, done := &recorder{}, make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return r.verdict
}
