package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
)

func TestWorker_GivesBackAtOnceWhatHasNotBegun(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	cfg := e.config()
	cfg.BatchSize, cfg.Concurrency = 10, 1
	began, release := make(chan struct{}, 1000), make(chan struct{})
	stop := e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		began <- struct{}{}
		<-release
		_, err := tx.Exec(ctx, effectSQL, m.ID, "")
		return none{}, err
	}))
	e.publish("n", "") // a batch of its own
	<-began
	for range 299 {
		e.publish("n", "")
	}
	testenv.Eventually(t, "more at the first worker than it has begun", func() bool { return e.consumerInfo().NumAckPending > 1 })
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	e.start(e.config(), e.effect("n"))
	testenv.Eventually(t, "all but what has begun at the next worker", func() bool { return e.stored() == 1 })
	close(release)
	<-stopped
	e.eventuallySettled()
	e.wantEffects(300)
	e.wantNoTrace()
	if len(began) != 0 {
		t.Errorf("%d messages were begun after the stop", len(began))
	}
}

func TestWorker_CutsWhatOutlivesTheDrainAtNoCost(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.publish("n", "")
	cfg := e.config()
	cfg.DrainTimeout = 100 * time.Millisecond
	began := make(chan struct{}, 1)
	stop := e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (none, error) {
		if m.Attempt == 1 {
			return none{}, errTest
		}
		_, err := tx.Exec(ctx, effectSQL, m.ID, "")
		began <- struct{}{}
		<-ctx.Done()
		return none{}, errors.Join(err, ctx.Err())
	}))
	<-began
	stop()
	if got := query[string](e, `SELECT string_agg(error, ', ') FROM jetbox.failed_attempt`); got != errTest.Error() {
		t.Errorf("attempts on record = %q, want the first alone", got)
	}
	e.wantCount(0, "effects", `SELECT count(*) FROM effect`)
	e.start(e.config(), e.effect("n"))
	e.eventuallySettled()
	e.wantEffects(1)
	e.wantNoTrace()
}

func TestWorker_ComesBackAfterItsConsumerWasDeleted(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	w, _ := e.startOn(e.db, e.dial, e.config(), e.effect("n"))
	e.publish("n", "")
	e.eventuallySettled()
	if err := e.js.DeleteConsumer(t.Context(), e.stream, "w"); err != nil {
		t.Fatal(err)
	}
	e.publish("n", "")
	e.eventuallySettled()
	e.wantEffects(2)
	testenv.Eventually(t, "readiness", func() bool { return w.Ready(t.Context()) == nil })
}

func TestWorker_ComesBackAfterItsConnectionWasClosed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	cfg := e.config()
	cfg.AckWait = time.Second // for what the broker sends before it notices
	var last atomic.Pointer[nats.Conn]
	w, _ := e.startOn(e.db, func() (*nats.Conn, error) {
		conn, err := e.dial()
		last.Store(conn)
		return conn, err
	}, cfg, e.effect("n"))
	e.publish("n", "")
	e.eventuallySettled()
	last.Load().Close()
	e.publish("n", "")
	e.eventuallySettled()
	e.wantEffects(2)
	testenv.Eventually(t, "readiness", func() bool { return w.Ready(t.Context()) == nil })
}

func TestWorker_SurvivesABrokersRestartAndTheLossOfItsDisk(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	own := testenv.OwnNATS(t)
	conn, err := nats.Connect(own.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	e.url = own.URL()
	if e.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	stream := jetstream.StreamConfig{Name: e.stream, Subjects: []string{e.prefix + ".>"}, Retention: jetstream.WorkQueuePolicy}
	w, _ := e.startOn(e.db, func() (*nats.Conn, error) {
		return nats.Connect(own.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	}, e.config(), e.effect("n")) // before there is a stream
	if w.Ready(t.Context()) == nil {
		t.Error("ready without a stream")
	}
	if _, err := e.js.CreateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	first := e.publish("n", "")
	e.eventuallySettled()
	for i, loss := range []bool{false, true} {
		if err := own.Stop(); err != nil {
			t.Fatal(err)
		}
		if loss {
			if err := os.RemoveAll(own.StoreDir()); err != nil {
				t.Fatal(err)
			}
		}
		if err := own.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the broker", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := e.js.CreateOrUpdateStream(ctx, stream)
			return err == nil
		})
		e.publish("n", "")
		e.publish("n", "", replayed(first, i+1))
		e.eventuallySettled()
	}
	e.wantEffects(3)
	e.wantNoTrace()
}

func TestWorker_RefusesAConsumerThatBreaksItsPromises(t *testing.T) {
	t.Parallel()
	e := newEnvOn(t, jetstream.StreamConfig{})
	if _, err := e.js.CreateConsumer(t.Context(), e.stream, jetstream.ConsumerConfig{
		Durable:   "w",
		AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverNewPolicy, MaxDeliver: 7, HeadersOnly: true,
	}); err != nil {
		t.Fatal(err)
	}
	contains(t, "error", e.refused(t), "AckPolicy", "DeliverPolicy", "MaxDeliver 7", "HeadersOnly", e.stream)
}

// refused runs a worker that must refuse its consumer, and returns its error.
func (e *env) refused(t *testing.T) string {
	t.Helper()
	w, err := inbox.NewWorker(e.db, e.dial, e.config(), e.effect("n"))
	if err != nil {
		t.Fatal(err)
	}
	err = w.Run(t.Context())
	if !errors.Is(err, inbox.ErrConsumer) {
		t.Fatalf("Run = %v, want ErrConsumer", err)
	}
	return err.Error()
}

func TestWorker_NamesTheFixWhenConsumersOfAWorkQueueOverlap(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	if _, err := e.js.CreateConsumer(t.Context(), e.stream, jetstream.ConsumerConfig{
		Durable: "other", AckPolicy: jetstream.AckExplicitPolicy,
	}); err != nil {
		t.Fatal(err)
	}
	contains(t, "error", e.refused(t), "a work queue gives each message to one consumer", "FilterSubjects")
}

func TestWorker_BringsItsConsumerToShape(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	if _, err := e.js.CreateConsumer(t.Context(), e.stream, jetstream.ConsumerConfig{
		Durable:   "w",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, FilterSubject: e.subject("x"), Description: "kept",
	}); err != nil {
		t.Fatal(err)
	}
	cfg := e.config()
	cfg.AckWait = 20 * time.Second
	e.start(cfg, e.effect("n"), e.effect("m.*"), e.effect("m.a"))
	e.publish("n", "")
	e.publish("m.b", "")
	e.eventuallySettled()
	got := e.consumerInfo().Config
	if got.AckWait != 20*time.Second || got.MaxAckPending != 20_000 || got.MaxDeliver != -1 || got.Description != "kept" ||
		len(got.FilterSubjects) != 2 {
		t.Errorf("consumer = %+v", got)
	}
}

func TestRun_EndsWhenTheDatabaseLacksWhatItNeeds(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(`CREATE FUNCTION public.rows(m jetbox.message) RETURNS SETOF json LANGUAGE sql AS 'SELECT null::json'`)
	empty, err := pgxpool.New(t.Context(), configURL(testenv.EmptyDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(empty.Close)
	older := testenv.Database(t)
	if _, err := older.Exec(t.Context(), `DROP FUNCTION jetbox.known`); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		db      *pgxpool.Pool
		handler inbox.Handler
		want    string
	}{
		"no schema":            {empty, e.effect("n"), "is the schema migrated"},
		"an older schema":      {older, e.effect("n"), "is the schema migrated"},
		"no function":          {e.db, inbox.SQLFunction(e.subject("n"), "app.nothing"), "app.nothing(jetbox.message) does not exist"},
		"function of many":     {e.db, inbox.SQLFunction(e.subject("n"), "public.rows"), "does not return a single value"},
		"function of bad name": {e.db, inbox.SQLFunction(e.subject("n"), "x(); DROP TABLE y"), "want name or schema.name"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w, err := inbox.NewWorker(c.db, e.dial, e.config(), c.handler)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Run(t.Context()); err == nil {
				t.Fatal("Run = nil, want an error")
			} else if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run = %v, want %q in it", err, c.want)
			}
		})
	}
}

func configURL(c *pgx.ConnConfig) string {
	return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=disable", c.Host, c.Port, c.User, c.Password, c.Database)
}

func TestRun_WaitsForADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	n, db := newNetwork(t, e.db)
	n.cut()
	w, _ := e.startOn(db, e.dial, e.config(), e.effect("n"))
	e.publish("n", "")
	if w.Ready(t.Context()) == nil {
		t.Error("ready without a database")
	}
	n.down.Store(false)
	e.eventuallySettled()
	e.wantEffects(1)
}
