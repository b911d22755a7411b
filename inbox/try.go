package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// Verdict is how an attempt at a message ends.
type Verdict string

// The verdicts of Try.
const (
	Done      Verdict = "done"      // effects, ID and result are in the transaction
	Duplicate Verdict = "duplicate" // the handler was not called: the inbox has the ID
	Retry     Verdict = "retry"     // another attempt would follow
	Dead      Verdict = "dead"      // a dead letter would be written
)

// Outcome is what Try found.
type Outcome struct {
	Verdict Verdict
	Result  json.RawMessage // of Done; nil for none
	Err     error           // of Retry and Dead
	After   time.Duration   // of Retry, if the handler asked for a delay
}

// Try makes attempt number attempt at m in tx, as a worker of consumer would,
// but for what takes a broker or a commit: it acknowledges nothing, writes no
// dead letter, and undoes a failed attempt so that tx can go on. It is there for
// tests; package inboxtest makes it handy. Its own error says that there was no
// attempt.
func Try(ctx context.Context, tx pgx.Tx, consumer string, h Handler, m *nats.Msg, attempt int) (Outcome, error) {
	h = WorkerConfig{}.withDefaults(nil).limited([]Handler{h})[0]
	if err := h.prepareIn(ctx, tx); err != nil {
		return Outcome{}, fmt.Errorf("inbox: try: %w", err)
	}
	d, err := newDelivery(local{m: m, consumer: consumer})
	if err != nil {
		return Outcome{}, fmt.Errorf("inbox: try: %w", err)
	}
	d.handler, d.attempt = &h, attempt
	switch {
	case d.refusal != nil:
		return Outcome{Verdict: Dead, Err: d.refusal}, nil
	case !streams.Covers(h.subject, m.Subject):
		return Outcome{Verdict: Dead, Err: fmt.Errorf("no handler for subject %s", m.Subject)}, nil
	}
	return try(ctx, tx, consumer, d)
}

// prepareIn looks up in tx what h needs, and leaves no trace there.
func (h *Handler) prepareIn(ctx context.Context, tx pgx.Tx) (err error) {
	if h.prepare == nil {
		return nil
	}
	look, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	h.runSet, err = h.prepare(ctx, look)
	return errors.Join(err, look.Rollback(ctx))
}

func try(ctx context.Context, tx pgx.Tx, consumer string, d *delivery) (Outcome, error) {
	var b pgx.Batch
	k := askKnown(&b, consumer, []*delivery{d})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return Outcome{}, fmt.Errorf("inbox: try: look up: %w", err)
	}
	if _, _, rest := k.split([]*delivery{d}); len(rest) == 0 {
		return Outcome{Verdict: Duplicate}, nil
	}
	err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) (err error) {
		if d.result, err = runAlone(ctx, tx, d); err != nil {
			return err
		}
		var b pgx.Batch
		record(&b, consumer, []*delivery{d})
		return recorded(tx.SendBatch(ctx, &b).Close())
	})
	if err != nil {
		return d.failed(err), nil
	}
	o := Outcome{Verdict: Done}
	if d.result != nil {
		o.Result = json.RawMessage(*d.result)
	}
	return o, nil
}

// failed is the outcome of an attempt that failed with cause.
func (d *delivery) failed(cause error) Outcome {
	o := Outcome{Verdict: Retry, Err: cause}
	if d.isLast(cause) {
		o.Verdict = Dead
	} else if e, ok := errors.AsType[*retryError](cause); ok {
		o.After = e.after
	}
	return o
}

// local is a message that no broker has delivered.
type local struct {
	jetstream.Msg
	m        *nats.Msg
	consumer string
}

func (l local) Subject() string      { return l.m.Subject }
func (l local) Data() []byte         { return l.m.Data }
func (l local) Headers() nats.Header { return l.m.Header }

func (l local) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Consumer: l.consumer, NumDelivered: 1, Timestamp: time.Now()}, nil
}
