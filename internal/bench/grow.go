package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// GrowResult is the relay's rate with a history of published rows.
type GrowResult struct {
	Bench   string `json:"bench"`
	History int    `json:"history"`
	// Held says that a transaction held its snapshot open all the time.
	Held      bool    `json:"held_snapshot"`
	Rate      float64 `json:"rate"`
	LimitRate float64 `json:"limit_rate"`
	Ratio     float64 `json:"ratio"`
	// Flat is Rate over the rate without history.
	Flat float64 `json:"flat"`
	// FlatRatio is the same of Ratio, for a machine whose speed changes meanwhile.
	FlatRatio  float64   `json:"flat_ratio"`
	DeadTuples int64     `json:"dead_tuples"`
	Rates      []float64 `json:"rates"` // of each round
}

func (r GrowResult) String() string {
	held := ""
	if r.Held {
		held = ", snapshot held"
	}
	return fmt.Sprintf("grow: %s rows of history%s: %s messages/s, %.2f of the rate without history (%.2f beside the bare publisher's %s); %d dead tuples",
		count(float64(r.History)), held, count(r.Rate), r.Flat, r.FlatRatio, count(r.LimitRate), r.DeadTuples)
}

// Grow measures the relay again and again while the outbox grows, and at last
// while a transaction keeps Postgres from forgetting anything.
func Grow(ctx context.Context, cfg Config) (Report, error) {
	return measure(ctx, "grow", cfg, func(ctx context.Context, l *lab, r *Report) error {
		p, err := l.newRelayPair(ctx)
		if err != nil {
			return err
		}
		g := &growth{relayPair: p, report: r}
		for _, n := range l.History {
			if err := g.fill(ctx, n); err != nil {
				return err
			}
			if err := g.measure(ctx, false); err != nil {
				return err
			}
		}
		return g.hold(ctx, func() error { return g.measure(ctx, true) })
	})
}

// growth is a relay whose outbox grows.
type growth struct {
	*relayPair
	report *Report
	first  *GrowResult
	rows   int // of history that was made
}

func (g *growth) measure(ctx context.Context, held bool) error {
	rounds, err := g.rounds(ctx, fmt.Sprintf("grow %s", count(float64(g.rows))))
	if err != nil {
		return err
	}
	s := summarize(g.Config, rounds)
	result := GrowResult{
		Bench: "grow", History: g.rows, Held: held, Rate: s.Rate, LimitRate: s.LimitRate,
		Ratio: s.Ratio, DeadTuples: s.DeadTuples,
		Rates: each(rounds, func(r relayRound) float64 { return round(r.rate, 0) }),
	}
	if g.first == nil {
		g.first = &result
	}
	result.Flat = round(result.Rate/g.first.Rate, 3)
	result.FlatRatio = round(result.Ratio/g.first.Ratio, 3)
	g.report.Results = append(g.report.Results, result)
	return nil
}

const (
	historySQL = `
INSERT INTO jetbox.outbox (message_id, subject, payload)
SELECT gen_random_uuid(), $1, $2::text::json FROM generate_series(1, $3::int)`
	// publishedSQL is what a relay writes when it has published all there is.
	publishedSQL = `
INSERT INTO jetbox.relay_batch (seq, epoch, snap, n)
SELECT coalesce(max(seq), 0) + 1, coalesce(max(epoch), 0), pg_current_snapshot(), 0 FROM jetbox.relay_batch`
	// coverSQL is what a relay does as it goes; a piece for each block that may be
	// one's first.
	coverSQL = `
SELECT jetbox.summarize_outbox(child, block) FROM generate_series(0, 7) AS child,
	generate_series(0, pg_relation_size('jetbox.outbox_' || child) / current_setting('block_size')::bigint, 32 * 1024) AS block`
)

// fill makes history: rows in chunks, by as many connections as help, a ledger row
// that says all were published, and an index that covers them.
func (g *growth) fill(ctx context.Context, rows int) error {
	const chunk = 100_000
	fillers, step := errgroup.WithContext(ctx)
	fillers.SetLimit(2)
	subject, payload := g.subject(g.relayed), g.payload()
	g.Say("making %s rows of history", count(float64(rows-g.rows)))
	for ; g.rows < rows; g.rows += min(chunk, rows-g.rows) {
		n := min(chunk, rows-g.rows)
		fillers.Go(func() error { return g.exec(step, "make history", historySQL, subject, payload, n) })
	}
	if err := fillers.Wait(); err != nil {
		return err
	}
	if err := g.exec(ctx, "cover history", coverSQL); err != nil {
		return err
	}
	return g.exec(ctx, "record history", publishedSQL)
}

// hold runs f while a transaction holds its snapshot.
func (g *growth) hold(ctx context.Context, f func() error) error {
	conn, err := pgx.ConnectConfig(ctx, g.config.ConnConfig)
	if err != nil {
		return fmt.Errorf("hold a snapshot: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // it has only read
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		var began time.Time
		if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&began); err != nil {
			return fmt.Errorf("hold a snapshot: %w", err)
		}
		return f()
	})
}
