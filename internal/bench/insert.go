package bench

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// InsertResult compares INSERTs into the outbox with those into a plain table.
type InsertResult struct {
	Bench string `json:"bench"`
	// Ratio is the lowest of Clients.
	Ratio   float64        `json:"ratio"`
	Clients []InsertClient `json:"clients"`
}

// InsertClient is the comparison at one number of connections.
type InsertClient struct {
	Connections int       `json:"connections"`
	TPS         float64   `json:"tps"`
	ClassicTPS  float64   `json:"classic_tps"`
	Ratio       float64   `json:"ratio"`
	Ratios      []float64 `json:"ratios"` // of each round
}

func (r InsertResult) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "insert: %.2f × a plain outbox table at worst", r.Ratio)
	for _, c := range r.Clients {
		fmt.Fprintf(&text, "\n  %2d connections: %s transactions/s, plain %s, %.2f × (rounds %s)",
			c.Connections, count(c.TPS), count(c.ClassicTPS), c.Ratio, list(c.Ratios))
	}
	return text.String()
}

// classicSQL is the outbox of most applications: a row is pending until an
// UPDATE says otherwise, and a partial index finds it.
const classicSQL = `
CREATE TABLE public.classic_outbox (
	id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	message_id uuid NOT NULL DEFAULT gen_random_uuid(),
	subject    text NOT NULL,
	key        text,
	headers    json,
	payload    json NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	sent_at    timestamptz
);
CREATE INDEX classic_outbox_pending ON public.classic_outbox (id) WHERE sent_at IS NULL`

const (
	outboxRowSQL  = `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, $2)`
	classicRowSQL = `INSERT INTO public.classic_outbox (subject, payload) VALUES ($1, $2)`
)

// Insert measures single-row transactions. Nobody reads either table meanwhile:
// this is the price of the INSERT alone.
func Insert(ctx context.Context, cfg Config) (Report, error) {
	return measure(ctx, "insert", cfg, func(ctx context.Context, l *lab, r *Report) error {
		if err := l.exec(ctx, "make tables", classicSQL); err != nil {
			return err
		}
		result := InsertResult{Bench: "insert"}
		for _, conns := range []int{1, 8, 32} {
			c, err := l.compareInserts(ctx, conns)
			if err != nil {
				return fmt.Errorf("%d connections: %w", conns, err)
			}
			result.Clients = append(result.Clients, c)
			if result.Ratio == 0 || c.Ratio < result.Ratio {
				result.Ratio = c.Ratio
			}
		}
		r.Results = append(r.Results, result)
		return nil
	})
}

// turns is in how many turns each side of a round takes its time.
const turns = 4

// compareInserts lets both sides take short turns within a round, which share
// what else the machine does then.
func (l *lab) compareInserts(ctx context.Context, n int) (InsertClient, error) {
	c := InsertClient{Connections: n}
	conns, release, err := l.sessions(ctx, n)
	if err != nil {
		return c, err
	}
	defer release()
	var tps, classic []float64
	for i := range l.Rounds {
		var sums [2]float64
		for turn := range 2 * turns {
			side := (turn + turn/2 + i) % 2 // who goes first changes
			rate, err := l.insertFor(ctx, l.Duration/(2*turns), conns, [2]string{outboxRowSQL, classicRowSQL}[side])
			if err != nil {
				return c, err
			}
			sums[side] += rate / turns
		}
		tps, classic = append(tps, sums[0]), append(classic, sums[1])
		c.Ratios = append(c.Ratios, round(sums[0]/sums[1], 3))
		l.Say("insert %d/%d, %d connections: %s transactions/s, plain %s", i+1, l.Rounds, n, count(sums[0]), count(sums[1]))
	}
	c.TPS, c.ClassicTPS, c.Ratio = median(tps), median(classic), median(c.Ratios)
	return c, nil
}

// sessions are n connections that have inserted into both tables: a session's
// first INSERT plans and compiles.
func (l *lab) sessions(ctx context.Context, n int) (conns []*pgx.Conn, release func(), err error) {
	release = func() {
		for _, conn := range conns {
			_ = conn.Close(ctx) // all it did is committed
		}
	}
	for range n {
		conn, err := pgx.ConnectConfig(ctx, l.config.ConnConfig)
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, conn)
	}
	for _, sql := range []string{outboxRowSQL, classicRowSQL} {
		if _, err := l.insertFor(ctx, time.Millisecond, conns, sql); err != nil {
			release()
			return nil, nil, err
		}
	}
	return conns, release, nil
}

// insertFor returns transactions a second over d, at least one a session.
func (l *lab) insertFor(ctx context.Context, d time.Duration, conns []*pgx.Conn, sql string) (float64, error) {
	subject, payload := "bench.work", l.payload()
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for _, conn := range conns {
		g.Go(func() error {
			for first := true; first || time.Since(start) < d; first = false {
				if _, err := conn.Exec(ctx, sql, subject, payload); err != nil {
					return fmt.Errorf("insert: %w", err)
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), err
}
