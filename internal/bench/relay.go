package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
)

// RelayResult compares the relay with the broker's limit. All but Ratios are
// medians of the rounds.
type RelayResult struct {
	Bench    string  `json:"bench"`
	Messages int     `json:"messages"`
	Size     int     `json:"size"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"`
	// LimitRate is a bare asynchronous publisher's, of the same messages from memory.
	LimitRate float64 `json:"limit_rate"`
	Ratio     float64 `json:"ratio"`
	// CopyRate is a bare COPY of the same rows: the reader's limit.
	CopyRate   float64   `json:"copy_rate"`
	WALBytes   float64   `json:"wal_bytes_per_message"`
	CPU        float64   `json:"cpu_us_per_message"`
	DeadTuples int64     `json:"dead_tuples"`
	Route      string    `json:"route"`
	Ratios     []float64 `json:"ratios"` // of each round
}

func (r RelayResult) String() string {
	return fmt.Sprintf("relay: %s messages/s, %.2f × a bare publisher's %s (rounds %s); bare COPY %s rows/s; "+
		"%.2f B of WAL and %.1f µs of relay CPU a message; %d dead tuples; route %s; %s × %d B",
		count(r.Rate), r.Ratio, count(r.LimitRate), list(r.Ratios), count(r.CopyRate),
		r.WALBytes, r.CPU, r.DeadTuples, r.Route, count(float64(r.Messages)), r.Size)
}

// Relay measures messages that wait in the outbox until the ledger says that the
// last one is in its stream.
func Relay(ctx context.Context, cfg Config) (Report, error) {
	return measure(ctx, "relay", cfg, func(ctx context.Context, l *lab, r *Report) error {
		p, err := l.newRelayPair(ctx)
		if err != nil {
			return err
		}
		rounds, err := p.rounds(ctx, "relay")
		if err != nil {
			return err
		}
		r.Results = append(r.Results, summarize(l.Config, rounds))
		r.Series = append(r.Series, rounds[len(rounds)-1].series)
		return nil
	})
}

// relayPair is the relay and its yardsticks, each with a stream of the same kind.
type relayPair struct {
	*lab
	relayed, limit jetstream.Stream
}

// relayRound is one round's figures.
type relayRound struct {
	drained
	limitRate, copyRate float64
}

func (l *lab) newRelayPair(ctx context.Context) (*relayPair, error) {
	p := &relayPair{lab: l}
	var err error
	if p.relayed, err = l.stream(ctx, ""); err != nil {
		return nil, err
	}
	p.limit, err = l.stream(ctx, "_limit")
	return p, err
}

// rounds takes turns at going first.
func (p *relayPair) rounds(ctx context.Context, name string) ([]relayRound, error) {
	rounds := make([]relayRound, p.Rounds)
	for i := range rounds {
		r := &rounds[i]
		steps := []func() error{
			func() (err error) { r.limitRate, err = p.publishBare(ctx); return err },
			func() (err error) { r.drained, err = p.drain(ctx); return err },
		}
		if i%2 == 1 {
			steps[0], steps[1] = steps[1], steps[0]
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
		}
		var err error
		if r.copyRate, err = p.copyBare(ctx, r.firstID); err != nil {
			return nil, err
		}
		p.Say("%s %d/%d: %s messages/s, bare publisher %s, bare COPY %s", name, i+1, p.Rounds,
			count(r.rate), count(r.limitRate), count(r.copyRate))
	}
	return rounds, nil
}

func summarize(cfg Config, rounds []relayRound) RelayResult {
	of := func(f func(relayRound) float64) float64 { return median(each(rounds, f)) }
	ratios := each(rounds, func(r relayRound) float64 { return round(r.rate/r.limitRate, 3) })
	return RelayResult{
		Bench: "relay", Messages: cfg.Messages, Size: cfg.Size,
		Seconds:   of(func(r relayRound) float64 { return r.seconds }),
		Rate:      of(func(r relayRound) float64 { return r.rate }),
		LimitRate: of(func(r relayRound) float64 { return r.limitRate }),
		CopyRate:  of(func(r relayRound) float64 { return r.copyRate }),
		Ratio:     median(ratios), Ratios: ratios,
		WALBytes:   of(func(r relayRound) float64 { return r.walBytes }),
		CPU:        of(func(r relayRound) float64 { return r.cpu }),
		DeadTuples: rounds[len(rounds)-1].deadTuples, // a counter of the whole run
		Route:      rounds[len(rounds)-1].route,
	}
}

// drained is one drain of the outbox. rate and seconds are by Postgres' clock,
// from the commit of the messages to the ledger row of the last.
type drained struct {
	firstID       int64
	seconds, rate float64
	walBytes, cpu float64 // per message; cpu in µs
	deadTuples    int64
	route         string
	series        Series
}

// drain lets a fresh relay become idle, commits the messages at once, and
// measures until they are recorded. The stream is emptied before it.
func (p *relayPair) drain(ctx context.Context) (d drained, err error) {
	if err := p.relayed.Purge(ctx); err != nil {
		return d, fmt.Errorf("purge: %w", err)
	}
	background, err := p.backgroundWAL(ctx)
	if err != nil {
		return d, err
	}
	relay, err := p.startRelay(ctx, p.relayed)
	if err != nil {
		return d, err
	}
	measureErr := p.measureDrain(ctx, background, &d)
	cpu, err := stopRelay(relay)
	if err = errors.Join(measureErr, err); err != nil {
		return d, fmt.Errorf("drain: %w", err)
	}
	d.cpu = float64(cpu.Microseconds()) / float64(p.Messages)
	if d.deadTuples, err = p.deadTuples(ctx); err != nil {
		return d, err
	}
	return d, p.checkDrained(ctx, &d)
}

const lsnSQL = `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`

// backgroundWAL is how many bytes a second the server writes without a relay.
func (p *relayPair) backgroundWAL(ctx context.Context) (float64, error) {
	var before, after float64
	if err := p.db.QueryRow(ctx, lsnSQL).Scan(&before); err != nil {
		return 0, fmt.Errorf("wal: %w", err)
	}
	if err := sleep(ctx, time.Second); err != nil {
		return 0, err
	}
	if err := p.db.QueryRow(ctx, lsnSQL).Scan(&after); err != nil {
		return 0, fmt.Errorf("wal: %w", err)
	}
	return after - before, nil
}

const (
	enqueueSQL = `INSERT INTO jetbox.outbox (subject, payload) SELECT $1, $2::text::json FROM generate_series(1, $3::int)`
	beginSQL   = lsnSQL + `, last_value FROM jetbox.outbox_id_seq`
)

func (p *relayPair) measureDrain(ctx context.Context, background float64, d *drained) error {
	seq, err := p.ledgerSeq(ctx)
	if err != nil {
		return err
	}
	var walBefore, walAfter float64
	var last int64
	err = pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, enqueueSQL, p.subject(p.relayed), p.payload(), p.Messages); err != nil {
			return err
		}
		return tx.QueryRow(ctx, beginSQL).Scan(&walBefore, &last)
	})
	if err != nil {
		return fmt.Errorf("enqueue: %w", err)
	}
	d.firstID = last - int64(p.Messages) + 1
	began, err := p.clock(ctx)
	if err != nil {
		return err
	}
	err = p.until(ctx, 10*time.Minute, func() (bool, error) {
		n, err := p.recorded(ctx, seq)
		return n >= p.Messages, err
	})
	if err != nil {
		return err
	}
	if err := p.db.QueryRow(ctx, lsnSQL).Scan(&walAfter); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if d.series, d.seconds, err = p.ledgerSeries(ctx, seq, began); err != nil {
		return err
	}
	d.rate = float64(p.Messages) / d.seconds
	d.walBytes = max(0, walAfter-walBefore-background*d.seconds) / float64(p.Messages)
	return nil
}
