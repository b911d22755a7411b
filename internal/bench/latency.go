package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/jetboxhq/jetbox/inbox"
)

// LatencyResult says how long messages take at a rate that does not yield: each
// is due at its time, and its latency counts from then, however late its INSERT
// begins. All are medians of the rounds.
type LatencyResult struct {
	Bench string  `json:"bench"`
	Phase string  `json:"phase"`
	Rate  float64 `json:"rate"`
	// From when the INSERT was due until the effect is committed and acknowledged.
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	Max  float64 `json:"max_ms"`
	// Its three legs: due to COMMIT returned, to stored in the stream, to acknowledged.
	CommitP50  float64 `json:"commit_p50_ms"`
	CommitP99  float64 `json:"commit_p99_ms"`
	PublishP50 float64 `json:"publish_p50_ms"`
	PublishP99 float64 `json:"publish_p99_ms"`
	EffectP50  float64 `json:"effect_p50_ms"`
	EffectP99  float64 `json:"effect_p99_ms"`
	// Floor is one commit, one publish and one commit, each alone at p50.
	Floor        float64 `json:"floor_ms"`
	FloorCommit  float64 `json:"floor_commit_ms"`
	FloorPublish float64 `json:"floor_publish_ms"`
	// Ratio is P50 over Floor.
	Ratio   float64 `json:"ratio"`
	Effects int64   `json:"effects"`
	Doubled int64   `json:"doubled"`
}

func (r LatencyResult) String() string {
	return fmt.Sprintf("e2e at %s/s, open loop: p50 %.2f ms, p90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f; "+
		"commit %.2f + publish %.2f + effect %.2f ms at p50; %.2f × the floor of %.2f ms (commit %.2f twice, publish %.2f); %d doubled",
		count(r.Rate), r.P50, r.P90, r.P99, r.P999, r.Max, r.CommitP50, r.PublishP50, r.EffectP50,
		r.Ratio, r.Floor, r.FloorCommit, r.FloorPublish, r.Doubled)
}

// latencyRound is one round's figures.
type latencyRound struct {
	total, commit, publish, effect *hdrhistogram.Histogram
	floorCommit, floorPublish      float64
	rate                           float64
}

func (l *lab) latency(ctx context.Context, s jetstream.Stream) (r LatencyResult, last []Series, err error) {
	r = LatencyResult{Bench: "e2e", Phase: "latency"}
	var rounds []latencyRound
	for i := range l.Rounds {
		if err := l.exec(ctx, "make tables", effectSQL); err != nil {
			return r, nil, err
		}
		var round latencyRound
		if round.floorCommit, round.floorPublish, err = l.floor(ctx); err != nil {
			return r, nil, fmt.Errorf("floor: %w", err)
		}
		samples, err := l.openLoop(ctx, s)
		if err != nil {
			return r, nil, err
		}
		effects, doubled, err := l.countEffects(ctx, len(samples))
		if err != nil {
			return r, nil, err
		}
		r.Effects, r.Doubled = r.Effects+effects, r.Doubled+doubled
		round.fill(samples)
		rounds, last = append(rounds, round), overTime(samples)
		l.Say("latency %d/%d: p50 %.2f ms, p99 %.2f ms, floor %.2f ms", i+1, l.Rounds,
			quantile(round.total, 50), quantile(round.total, 99), 2*round.floorCommit+round.floorPublish)
	}
	r.summarize(rounds)
	return r, last, nil
}

func (r *LatencyResult) summarize(rounds []latencyRound) {
	of := func(f func(latencyRound) float64) float64 { return median(each(rounds, f)) }
	at := func(q float64, h func(latencyRound) *hdrhistogram.Histogram) float64 {
		return of(func(r latencyRound) float64 { return quantile(h(r), q) })
	}
	total := func(r latencyRound) *hdrhistogram.Histogram { return r.total }
	commit := func(r latencyRound) *hdrhistogram.Histogram { return r.commit }
	publish := func(r latencyRound) *hdrhistogram.Histogram { return r.publish }
	effect := func(r latencyRound) *hdrhistogram.Histogram { return r.effect }
	r.P50, r.P90, r.P99, r.P999, r.Max = at(50, total), at(90, total), at(99, total), at(99.9, total), at(100, total)
	r.CommitP50, r.CommitP99 = at(50, commit), at(99, commit)
	r.PublishP50, r.PublishP99 = at(50, publish), at(99, publish)
	r.EffectP50, r.EffectP99 = at(50, effect), at(99, effect)
	r.Rate = of(func(r latencyRound) float64 { return r.rate })
	r.FloorCommit = of(func(r latencyRound) float64 { return r.floorCommit })
	r.FloorPublish = of(func(r latencyRound) float64 { return r.floorPublish })
	r.Floor = of(func(r latencyRound) float64 { return 2*r.floorCommit + r.floorPublish })
	r.Ratio = of(func(r latencyRound) float64 { return quantile(r.total, 50) / (2*r.floorCommit + r.floorPublish) })
}

func (r *latencyRound) fill(samples []*sample) {
	r.total, r.commit, r.publish, r.effect = histogram(), histogram(), histogram(), histogram()
	for _, s := range samples {
		record(r.total, s.acked.Sub(s.due))
		record(r.commit, s.committed.Sub(s.due))
		record(r.publish, s.stored.Sub(s.committed))
		record(r.effect, s.acked.Sub(s.stored))
	}
	first, last := samples[0].due, samples[len(samples)-1].committed
	r.rate = round(float64(len(samples))/last.Sub(first).Seconds(), 1)
}

// producers is how many connections the open loop inserts on: enough that one
// slow commit does not keep the next message waiting.
const producers = 16

const dueSQL = `INSERT INTO jetbox.outbox (message_id, subject, payload) VALUES ($1, $2, $3)`

// openLoop inserts messages when they are due and follows each to its end.
func (l *lab) openLoop(ctx context.Context, s jetstream.Stream) ([]*sample, error) {
	inboxPrefix := l.newInbox()
	worker, err := l.runWorker(ctx, s, inboxPrefix, inbox.SQLFunction(l.subject(s), "public.handle"))
	if err != nil {
		return nil, err
	}
	o, err := l.observe(s, inboxPrefix, int(l.Duration.Seconds()*float64(l.Rate)))
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	working, stop := context.WithCancel(ctx)
	g.Go(func() error { return worker(working) })
	g.Go(func() error {
		defer stop()
		defer o.stop()
		// The worker is to be at rest when the first message comes.
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
		if err := l.insertOnTime(ctx, l.subject(s), o.samples); err != nil {
			return err
		}
		return l.until(ctx, time.Minute, func() (bool, error) { return o.left.Load() == 0, ctx.Err() })
	})
	g.Go(func() error { return o.run(ctx) })
	err = g.Wait()
	return o.samples, err
}

func (l *lab) insertOnTime(ctx context.Context, subject string, samples []*sample) error {
	db, err := l.pool(ctx, producers)
	if err != nil {
		return err
	}
	defer db.Close()
	start, payload := time.Now().Add(100*time.Millisecond), l.payload()
	g, ctx := errgroup.WithContext(ctx)
	for p := range producers {
		g.Go(func() error {
			for i := p; i < len(samples); i += producers {
				s := samples[i]
				s.due = start.Add(time.Duration(i) * time.Second / time.Duration(l.Rate))
				if err := sleep(ctx, time.Until(s.due)); err != nil {
					return err
				}
				if _, err := db.Exec(ctx, dueSQL, s.id, subject, payload); err != nil {
					return fmt.Errorf("insert: %w", err)
				}
				s.committed = time.Now()
			}
			return nil
		})
	}
	return g.Wait()
}

// floor measures a commit and a publish, each alone, in ms at p50.
func (l *lab) floor(ctx context.Context) (commit, publish float64, err error) {
	s, err := l.stream(ctx, "_floor")
	if err != nil {
		return 0, 0, err
	}
	const times = 300
	commits, publishes := histogram(), histogram()
	for range times {
		start := time.Now()
		if _, err := l.db.Exec(ctx, insertSQL, uuid.New(), l.payload()); err != nil {
			return 0, 0, fmt.Errorf("commit: %w", err)
		}
		record(commits, time.Since(start))
	}
	for _, msg := range l.messages(s, times) {
		start := time.Now()
		if _, err := l.js.PublishMsg(ctx, msg); err != nil {
			return 0, 0, fmt.Errorf("publish: %w", err)
		}
		record(publishes, time.Since(start))
	}
	if err := l.exec(ctx, "clear", `TRUNCATE public.effect`); err != nil {
		return 0, 0, err
	}
	return quantile(commits, 50), quantile(publishes, 50), l.remove(ctx, s.CachedInfo().Config.Name)
}
