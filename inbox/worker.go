package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// Dialer connects to NATS. The worker closes the connection, and dials again
// when it has been closed for good.
type Dialer func() (*nats.Conn, error)

// Worker processes the messages of one durable consumer.
type Worker struct {
	db       *pgxpool.Pool
	dial     Dialer
	cfg      WorkerConfig
	handlers []Handler
	log      *slog.Logger
	metrics  *metrics

	suspect chan struct{}             // held while a message runs that a worker did not survive
	days    atomic.Pointer[days]      // that the inbox covers
	outage  atomic.Bool               // of Postgres, as last logged
	left    atomic.Int64              // when the pool's connections were last dropped, in Unix nanoseconds
	live    atomic.Pointer[nats.Conn] // nil: no session
}

// NewWorker returns a worker that processes messages with handlers. Of several
// whose subjects match, the first one given is used.
func NewWorker(db *pgxpool.Pool, dial Dialer, cfg WorkerConfig, handlers ...Handler) (*Worker, error) {
	cfg = cfg.withDefaults(handlers)
	err := cfg.validate(handlers)
	if db == nil {
		err = errors.Join(err, errors.New("no Postgres pool"))
	}
	if dial == nil {
		err = errors.Join(err, errors.New("no dialer for NATS"))
	}
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	m, err := newMetrics(cfg)
	if err != nil {
		return nil, fmt.Errorf("inbox: metrics: %w", err)
	}
	return &Worker{
		db: db, dial: dial, cfg: cfg, handlers: cfg.limited(handlers), metrics: m,
		log:     cfg.Logger.With(slog.String("consumer", cfg.Consumer)),
		suspect: make(chan struct{}, 1),
	}, nil
}

// Run processes messages until ctx is done, then finishes what it has in hand,
// gives back what it has not begun within a tenth of DrainTimeout, and returns
// nil. It returns an error only when carrying on cannot help: the schema or a
// handler's function is missing, or the durable consumer is not fit.
func (w *Worker) Run(ctx context.Context) error {
	work, cancel := wait.Drain(ctx, w.cfg.DrainTimeout)
	defer cancel()
	if err := w.prepare(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.keepDays(ctx) })
	g.Go(func() error { return w.sessions(ctx, work) })
	return g.Wait()
}

// sessions builds one session after another.
func (w *Worker) sessions(ctx, work context.Context) error {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 100*time.Millisecond, 10*time.Second
	for ctx.Err() == nil {
		start := time.Now()
		err := w.session(ctx, work)
		if errors.Is(err, ErrConsumer) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > delays.MaxInterval { // it worked
			delays.Reset()
		}
		w.log.LogAttrs(ctx, slog.LevelWarn, "session ended, will connect again", slog.Any("error", err))
		wait.Sleep(ctx, delays.NextBackOff())
	}
	return nil
}

// capacity is how many messages the worker holds at most: those in work and as
// many to go on with.
func (w *Worker) capacity() int {
	n := 0
	for _, h := range w.handlers {
		if h.call == nil {
			n = max(n, 2*w.cfg.BatchSize*w.cfg.Concurrency)
		} else {
			n = max(n, 2*w.cfg.Calls)
		}
	}
	return min(n, maxAckPending)
}

func (w *Worker) handlerOf(subject string) *Handler {
	for i := range w.handlers {
		if streams.Covers(w.handlers[i].subject, subject) {
			return &w.handlers[i]
		}
	}
	return nil
}

// Ready returns nil while the worker consumes and Postgres answers.
func (w *Worker) Ready(ctx context.Context) error {
	switch conn := w.live.Load(); {
	case conn == nil:
		return errors.New("inbox: no session with the broker")
	case !conn.IsConnected():
		return fmt.Errorf("inbox: connection to the broker is %v", conn.Status())
	}
	if err := w.db.Ping(ctx); err != nil {
		return fmt.Errorf("inbox: postgres: %w", err)
	}
	return nil
}
