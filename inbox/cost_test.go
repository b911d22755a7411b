package inbox_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
)

// runs counts how often each message was handed to a handler.
type runs struct {
	mu sync.Mutex
	of map[uuid.UUID]int
}

func (r *runs) add(ids ...uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.of[id]++
	}
}

// most is the largest number of runs.
func (r *runs) most() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Max(slices.Collect(maps.Values(r.of)))
}

// fails is an attempt that has to fail: the first one of every message "bad".
func fails(m inbox.Message[[]byte]) error {
	if string(m.Payload) == "bad" && m.Attempt == 1 {
		return inbox.RetryAfter(0, errTest)
	}
	return nil
}

func failOneByOne(e *env, r *runs) inbox.Handler {
	return inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
		r.add(m.ID)
		if _, err := tx.Exec(ctx, effectSQL, m.ID, ""); err != nil {
			return nil, err
		}
		return nil, fails(m)
	})
}

func failAsASet(e *env, r *runs) inbox.Handler {
	return inbox.HandleBatch(e.subject("n"), func(ctx context.Context, tx pgx.Tx, msgs []inbox.Message[[]byte]) ([]any, error) {
		for _, m := range msgs {
			r.add(m.ID)
			if _, err := tx.Exec(ctx, effectSQL, m.ID, ""); err != nil {
				return nil, err
			}
		}
		for _, m := range msgs {
			if err := fails(m); err != nil {
				return nil, err
			}
		}
		return make([]any, len(msgs)), nil
	})
}

func failAfterEffect(e *env, _ *runs) inbox.Handler {
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO effect (message_id, note) VALUES (m.message_id, '');
		IF convert_from(m.payload_bytes, 'UTF8') = 'bad' AND m.attempt = 1 THEN RAISE 'bad'; END IF;
	END $$`)
	return inbox.SQLFunction(e.subject("n"), "public.handle")
}

func failInSQL(e *env) inbox.Handler {
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE plpgsql STABLE COST 1 AS $$
	BEGIN
		IF convert_from(m.payload_bytes, 'UTF8') = 'bad' AND m.attempt = 1 THEN RAISE 'bad'; END IF;
	END $$`)
	return inbox.SQLFunction(e.subject("n"), "public.handle")
}

// Whoever fails is tried again, and nobody else is; what a failure undid has its
// effect once.
func TestWorker_RetriesExactlyTheMessagesThatFail(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(*env, *runs) inbox.Handler{
		"one by one": failOneByOne, "as a set": failAsASet, "in SQL": failAfterEffect,
	} {
		for every, n := range map[int]int{1: 100, 3: 300, 100: 2000} {
			t.Run(fmt.Sprintf("%s, one of %d", name, every), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				e.publishFailing(n, every)
				r := &runs{of: map[uuid.UUID]int{}}
				e.exec(keepAttemptsSQL)
				e.start(e.config(), handler(e, r))
				e.eventuallySettled()
				e.wantEffects(n)
				e.wantFailedOnce()
				// A set is halved to find who failed. One by one, a message is undone once
				// by others, or a few times where a slow machine ends batches early.
				if name == "one by one" && r.most() > 10 {
					t.Errorf("a message ran %d times", r.most())
				}
			})
		}
	}
}

// Postgres itself says which message of a call has failed.
func TestSQLFunction_BlamesTheMessageThatFailed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.publishFailing(300, 10)
	e.exec(keepAttemptsSQL)
	e.start(e.config(), failInSQL(e))
	e.eventuallySettled()
	e.wantCount(300, "rows in the inbox", `SELECT count(*) FROM jetbox.inbox`)
	e.wantFailedOnce()
}

// The worker itself refuses a result, after the call: by then others have run
// behind savepoints of their own.
func TestSQLFunction_IsolatesAResultThatIsTooLarge(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.exec(`CREATE FUNCTION public.handle(m jetbox.message) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO effect (message_id, note) VALUES (m.message_id, '');
		IF convert_from(m.payload_bytes, 'UTF8') = 'bad' AND m.attempt = 1 THEN RAISE 'bad'; END IF;
		RETURN CASE WHEN convert_from(m.payload_bytes, 'UTF8') = 'big' THEN repeat('x', 1000000) END;
	END $$`)
	var big uuid.UUID
	e.publishAsync(200, func(i int, id uuid.UUID) string {
		switch i {
		case 5:
			return "bad"
		case 90:
			big = id
			return "big"
		}
		return "good"
	})
	e.start(e.config(), inbox.SQLFunction(e.subject("n"), "public.handle"))
	e.eventuallySettled()
	contains(t, "reason", e.letter(big).Reason, "result of 1000002 bytes is larger than")
	e.wantEffects(199)
	e.wantCount(199, "rows in the inbox", `SELECT count(*) FROM jetbox.inbox`)
}

// Calls that make one statement each wait for its answer together; calls that make
// two do not, from the first message on.
func TestWorker_WaitsForManyStatementsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 2000
	for name, statements := range map[string]int{"one statement": 1, "two statements": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.publishAsync(n, func(int, uuid.UUID) string { return "" })
			cfg := e.config()
			cfg.Concurrency = 1
			waiting, most := 0, 0 // one call at a time, or -race says so
			e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
				waiting++
				most = max(most, waiting)
				_, err := tx.Exec(ctx, effectSQL, m.ID, "")
				waiting--
				if statements > 1 && err == nil {
					_, err = tx.Exec(ctx, `SELECT 1`)
				}
				return nil, err
			}))
			e.eventuallySettled()
			e.wantEffects(n)
			e.wantNoTrace()
			if (most > 1) != (statements == 1) {
				t.Errorf("up to %d calls waited at once", most)
			}
		})
	}
}

// What breaks the connection, or leaves it unusable, is one message's doing too.
func TestWorker_BlamesTheMessageThatSpoilsThePipeline(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(context.Context, pgx.Tx, inbox.Message[[]byte]) error{
		"arguments that do not fit": func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error {
			_, err := tx.Exec(ctx, effectSQL, m.ID, struct{ N int }{1})
			return err
		},
		"rows left open": func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) error {
			_, err := tx.Query(ctx, `SELECT $1::uuid`, m.ID)
			return err
		},
		"a backend that ends": func(ctx context.Context, tx pgx.Tx, _ inbox.Message[[]byte]) error {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1`, true)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 2000
			e := newEnv(t)
			e.publishFailing(n, 500)
			e.exec(keepAttemptsSQL)
			r := &runs{of: map[uuid.UUID]int{}}
			cfg := e.config()
			cfg.BatchSize, cfg.Concurrency = 100, 1 // the first messages tell how to run the others
			e.start(cfg, inbox.HandleTx(e.subject("n"), func(ctx context.Context, tx pgx.Tx, m inbox.Message[[]byte]) (any, error) {
				if string(m.Payload) == "bad" && m.Attempt == 1 {
					r.add(m.ID)
					return nil, spoil(ctx, tx, m)
				}
				_, err := tx.Exec(ctx, effectSQL, m.ID, "")
				return nil, err
			}))
			e.eventuallySettled()
			e.wantEffects(n)
			e.wantFailedOnce()
			if most := r.most(); most > 5 {
				t.Errorf("a message broke %d transactions, want few", most)
			}
		})
	}
}

// wantFailedOnce checks that the bad messages failed once each, and no other.
func (e *env) wantFailedOnce() {
	e.t.Helper()
	e.wantNoTrace()
	e.wantCount(0, "messages whose failures are not what they should be", `
		SELECT count(*) FROM (SELECT message_id, count(*) AS n FROM attempt_log GROUP BY message_id) l
		FULL JOIN bad b ON b.id = l.message_id WHERE l.n IS DISTINCT FROM 1 OR b.id IS NULL`)
}

// keepAttemptsSQL remembers each attempt that failed, which the inbox forgets
// when the message is done.
const keepAttemptsSQL = `
CREATE TABLE attempt_log (message_id uuid, attempt int);
CREATE FUNCTION log_attempt() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.attempt_log VALUES (NEW.message_id, NEW.attempt); RETURN NULL; END $$;
CREATE TRIGGER log AFTER INSERT ON jetbox.failed_attempt FOR EACH ROW EXECUTE FUNCTION log_attempt()`

// publishFailing stores n messages, of which one in every is bad.
func (e *env) publishFailing(n, every int) {
	e.t.Helper()
	var bad []uuid.UUID
	e.publishAsync(n, func(i int, id uuid.UUID) (payload string) {
		if i%every != every/2 {
			return "good"
		}
		bad = append(bad, id)
		return "bad"
	})
	e.exec(`CREATE TABLE bad AS SELECT unnest($1::uuid[]) AS id`, bad)
}

// publishAsync stores n messages quickly.
func (e *env) publishAsync(n int, payload func(i int, id uuid.UUID) string) {
	e.t.Helper()
	js, err := jetstream.New(e.js.Conn(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		e.t.Fatal(err)
	}
	for i := range n {
		id := uuid.Must(uuid.NewV7())
		if _, err := js.PublishMsgAsync(wireMsg(e.subject("n"), id, payload(i, id)), jetstream.WithStallWait(time.Minute)); err != nil {
			e.t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}
