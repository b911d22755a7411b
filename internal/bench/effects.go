package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/inbox"
)

// effectSQL is what every handler writes to: a table with a primary key, which
// is not the message's ID, so that a doubled effect shows. Each round begins
// with empty tables.
const effectSQL = `
TRUNCATE jetbox.inbox;
DROP TABLE IF EXISTS public.effect, public.processed CASCADE;
CREATE TABLE public.effect (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	message_id uuid NOT NULL,
	body       text NOT NULL
);
CREATE TABLE public.processed (message_id uuid PRIMARY KEY);
CREATE OR REPLACE FUNCTION public.handle(m jetbox.message) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.effect (message_id, body) VALUES (m.message_id, m.payload->>'text')
$$`

// countEffects counts after checking that as many came as were asked for.
func (l *lab) countEffects(ctx context.Context, want int) (effects, doubled int64, err error) {
	err = l.db.QueryRow(ctx, `SELECT count(*), count(*) - count(DISTINCT message_id) FROM public.effect`).Scan(&effects, &doubled)
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("count effects: %w", err)
	case effects-doubled != int64(want):
		return 0, 0, fmt.Errorf("%w: effects of %d messages, want %d", errIncomplete, effects-doubled, want)
	}
	return effects, doubled, nil
}

// work runs consume until n messages of s have been acknowledged, and returns
// how that went.
func (l *lab) work(ctx context.Context, s jetstream.Stream, n int, consume func(context.Context) error) (m meter, end float64, err error) {
	before, err := acknowledged(ctx, s)
	if err != nil {
		return m, 0, err
	}
	goal, start := before+n, time.Now()
	g, ctx := errgroup.WithContext(ctx)
	working, stop := context.WithCancel(ctx)
	defer stop()
	g.Go(func() error { return consume(working) })
	g.Go(func() error {
		defer stop()
		return l.until(ctx, 10*time.Minute, func() (bool, error) {
			now, err := acknowledged(ctx, s)
			end = time.Since(start).Seconds()
			m.add(end, now-before)
			before = now
			return now >= goal, err
		})
	})
	err = g.Wait()
	return m, end, err
}

// acknowledged counts the messages that a work queue has taken and no longer
// holds.
func acknowledged(ctx context.Context, s jetstream.Stream) (int, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("stream info: %w", err)
	}
	return int(info.State.LastSeq - info.State.Msgs), nil
}

// runWorker returns what runs jetbox's own worker, with its default settings.
// Its NATS connection has an inbox of its own: whoever listens to that must not
// keep the requests of a worker before it alive.
func (l *lab) runWorker(ctx context.Context, s jetstream.Stream, inboxPrefix string, handler inbox.Handler) (func(context.Context) error, error) {
	cfg := inbox.WorkerConfig{Stream: s.CachedInfo().Config.Name}
	db, err := l.pool(ctx, cfg.Connections())
	if err != nil {
		return nil, err
	}
	worker, err := inbox.NewWorker(db, func() (*nats.Conn, error) { return l.dial(inboxPrefix) }, cfg, handler)
	if err != nil {
		db.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer db.Close()
		return worker.Run(ctx)
	}, nil
}
