package bench

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
)

// WorkerResult compares one kind of handler with a transaction a message.
type WorkerResult struct {
	Bench      string  `json:"bench"`
	Kind       string  `json:"kind"`
	Messages   int     `json:"messages"`
	Rate       float64 `json:"rate"`
	SingleRate float64 `json:"single_rate"`
	Ratio      float64 `json:"ratio"`
	// Effects and Doubled are of all rounds together.
	Effects int64     `json:"effects"`
	Doubled int64     `json:"doubled"`
	Ratios  []float64 `json:"ratios"` // of each round
}

func (r WorkerResult) String() string {
	return fmt.Sprintf("worker, %s: %s effects/s, %.2f × a transaction a message (%s/s); rounds %s; %s effects, %d doubled",
		r.Kind, count(r.Rate), r.Ratio, count(r.SingleRate), list(r.Ratios), count(float64(r.Effects)), r.Doubled)
}

// body is the payload, as a handler in Go sees it.
type body struct {
	Text string `json:"text"`
}

const insertSQL = `INSERT INTO public.effect (message_id, body) VALUES ($1, $2)`

func insertOne(ctx context.Context, tx pgx.Tx, msg inbox.Message[body]) (any, error) {
	_, err := tx.Exec(ctx, insertSQL, msg.ID, msg.Payload.Text)
	return nil, err
}

const insertManySQL = `INSERT INTO public.effect (message_id, body) SELECT * FROM unnest($1::uuid[], $2::text[])`

func insertMany(ctx context.Context, tx pgx.Tx, msgs []inbox.Message[body]) ([]any, error) {
	ids, texts := make([]uuid.UUID, len(msgs)), make([]string, len(msgs))
	for i, m := range msgs {
		ids[i], texts[i] = m.ID, m.Payload.Text
	}
	_, err := tx.Exec(ctx, insertManySQL, ids, texts)
	return make([]any, len(msgs)), err
}

// kind is one way to process messages.
type kind struct {
	name     string
	messages int
	start    func(ctx context.Context, l *lab, s jetstream.Stream) (func(context.Context) error, error)

	rates            []float64
	effects, doubled int64
	series           Series
}

// kinds begins with the yardstick, which gets a fifth of the messages: it is
// that much slower.
func kinds(messages int) []*kind {
	worker := func(handler func(subject string) inbox.Handler) func(context.Context, *lab, jetstream.Stream) (func(context.Context) error, error) {
		return func(ctx context.Context, l *lab, s jetstream.Stream) (func(context.Context) error, error) {
			return l.runWorker(ctx, s, l.newInbox(), handler(l.subject(s)))
		}
	}
	return []*kind{
		{name: "single", messages: messages / 5, start: startSingle},
		{name: "tx", messages: messages, start: worker(func(s string) inbox.Handler { return inbox.HandleTx(s, insertOne) })},
		{name: "batch", messages: messages, start: worker(func(s string) inbox.Handler { return inbox.HandleBatch(s, insertMany) })},
		{name: "sql", messages: messages, start: worker(func(s string) inbox.Handler { return inbox.SQLFunction(s, "public.handle") })},
	}
}

// Worker measures messages that wait in the stream until all are acknowledged,
// from before the worker connects.
func Worker(ctx context.Context, cfg Config) (Report, error) {
	return measure(ctx, "worker", cfg, func(ctx context.Context, l *lab, r *Report) error {
		all := kinds(l.Messages)
		for i := range l.Rounds {
			for _, k := range all {
				if err := l.round(ctx, i, k); err != nil {
					return fmt.Errorf("%s: %w", k.name, err)
				}
			}
		}
		for _, k := range all {
			r.Results = append(r.Results, k.result(all[0]))
			r.Series = append(r.Series, k.series)
		}
		return nil
	})
}

// round empties the table and fills a new stream, then lets k process it.
func (l *lab) round(ctx context.Context, i int, k *kind) error {
	if err := l.exec(ctx, "make tables", effectSQL); err != nil {
		return err
	}
	s, err := l.stream(ctx, fmt.Sprintf("_%s%d", k.name, i))
	if err != nil {
		return err
	}
	if err := l.publish(ctx, l.messages(s, k.messages)); err != nil {
		return err
	}
	consume, err := k.start(ctx, l, s)
	if err != nil {
		return err
	}
	m, end, err := l.work(ctx, s, k.messages, consume)
	if err != nil {
		return err
	}
	effects, doubled, err := l.countEffects(ctx, k.messages)
	if err != nil {
		return err
	}
	if err := l.remove(ctx, s.CachedInfo().Config.Name); err != nil {
		return err
	}
	k.rates = append(k.rates, float64(k.messages)/end)
	k.effects, k.doubled = k.effects+effects, k.doubled+doubled
	k.series = m.series(k.name, end)
	l.Say("worker %s %d/%d: %s effects/s", k.name, i+1, l.Rounds, count(k.rates[i]))
	return nil
}

func (k *kind) result(single *kind) WorkerResult {
	ratios := make([]float64, len(k.rates))
	for i := range ratios {
		ratios[i] = round(k.rates[i]/single.rates[i], 3)
	}
	return WorkerResult{
		Bench: "worker", Kind: k.name, Messages: k.messages,
		Rate: median(k.rates), SingleRate: median(single.rates), Ratio: median(ratios), Ratios: ratios,
		Effects: k.effects, Doubled: k.doubled,
	}
}
