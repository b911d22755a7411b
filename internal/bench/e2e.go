package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/outbox"
)

// SaturationResult is the throughput of the whole way, from the first INSERT to
// the last committed effect, with producers that never wait.
type SaturationResult struct {
	Bench          string    `json:"bench"`
	Phase          string    `json:"phase"`
	PerTransaction int       `json:"per_transaction"`
	Connections    int       `json:"connections"`
	Messages       int       `json:"messages"`
	Rate           float64   `json:"rate"`
	Effects        int64     `json:"effects"`
	Doubled        int64     `json:"doubled"`
	Rates          []float64 `json:"rates"` // of each round
}

func (r SaturationResult) String() string {
	return fmt.Sprintf("e2e, INSERTs of %d a transaction on %d connections: %s effects/s; %s effects, %d doubled",
		r.PerTransaction, r.Connections, count(r.Rate), count(float64(r.Effects)), r.Doubled)
}

// E2E measures INSERT to committed effect, with a SQL function as the handler:
// first how many a second, then how long one takes.
func E2E(ctx context.Context, cfg Config) (Report, error) {
	return measure(ctx, "e2e", cfg, func(ctx context.Context, l *lab, r *Report) error {
		s, err := l.stream(ctx, "")
		if err != nil {
			return err
		}
		relay, err := l.startRelay(ctx, s)
		if err != nil {
			return err
		}
		err = l.endToEnd(ctx, s, r)
		_, stopErr := stopRelay(relay)
		return errors.Join(err, stopErr)
	})
}

func (l *lab) endToEnd(ctx context.Context, s jetstream.Stream, r *Report) error {
	if err := s.Purge(ctx); err != nil { // of the relay's first message
		return fmt.Errorf("purge: %w", err)
	}
	for _, load := range []load{
		{per: 100, conns: 4, messages: l.Messages},
		{per: 1, conns: 32, messages: l.Messages / 5}, // that much slower
	} {
		result, series, err := l.saturate(ctx, s, load)
		if err != nil {
			return fmt.Errorf("%d a transaction: %w", load.per, err)
		}
		r.Results = append(r.Results, result)
		r.Series = append(r.Series, series)
	}
	result, series, err := l.latency(ctx, s)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	r.Results = append(r.Results, result)
	r.Series = append(r.Series, series...)
	return nil
}

// load is how producers insert.
type load struct{ per, conns, messages int }

func (l *lab) saturate(ctx context.Context, s jetstream.Stream, load load) (r SaturationResult, last Series, err error) {
	load.messages -= load.messages % load.per
	r = SaturationResult{Bench: "e2e", Phase: "saturation", PerTransaction: load.per, Connections: load.conns, Messages: load.messages}
	for i := range l.Rounds {
		m, end, err := l.saturateOnce(ctx, s, load)
		if err != nil {
			return r, last, err
		}
		effects, doubled, err := l.countEffects(ctx, load.messages)
		if err != nil {
			return r, last, err
		}
		r.Effects, r.Doubled = r.Effects+effects, r.Doubled+doubled
		r.Rates = append(r.Rates, round(float64(load.messages)/end, 0))
		last = m.series(fmt.Sprintf("%d a transaction", load.per), end)
		l.Say("e2e, %d a transaction %d/%d: %s effects/s", load.per, i+1, l.Rounds, count(r.Rates[i]))
	}
	r.Rate = median(r.Rates)
	return r, last, nil
}

func (l *lab) saturateOnce(ctx context.Context, s jetstream.Stream, load load) (m meter, end float64, err error) {
	if err := l.exec(ctx, "make tables", effectSQL); err != nil {
		return m, 0, err
	}
	worker, err := l.runWorker(ctx, s, l.newInbox(), inbox.SQLFunction(l.subject(s), "public.handle"))
	if err != nil {
		return m, 0, err
	}
	db, err := l.pool(ctx, load.conns)
	if err != nil {
		return m, 0, err
	}
	defer db.Close()
	return l.work(ctx, s, load.messages, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return worker(ctx) })
		g.Go(func() error { return l.produce(ctx, db, l.subject(s), load) })
		return g.Wait()
	})
}

// produce inserts as fast as it can.
func (l *lab) produce(ctx context.Context, db *pgxpool.Pool, subject string, load load) error {
	msgs := make([]outbox.Message, load.per)
	for i := range msgs {
		msgs[i] = outbox.Message{Subject: subject, Payload: json.RawMessage(l.payload())}
	}
	var begun atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range load.conns {
		g.Go(func() error {
			for begun.Add(int64(load.per)) <= int64(load.messages) {
				err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return outbox.Enqueue(ctx, tx, msgs...) })
				if err != nil {
					return fmt.Errorf("produce: %w", err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}
