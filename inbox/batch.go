package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// process settles every delivery of batch, or gives all that are left back to
// the broker when Postgres is away or the worker stops.
func (s *session) process(ctx context.Context, batch []*delivery) {
	for left := batch; len(left) > 0; {
		now, again := unique(left)
		slow, err := s.settleAll(ctx, now)
		if err == nil && s.isStopping() {
			err = errStopping // for what is left
		}
		if err != nil {
			s.postpone(ctx, batch, err)
			return
		}
		left = append(slow, again...)
	}
}

// settleAll settles ds, except those it leaves because others of their batch
// were slow.
func (s *session) settleAll(ctx context.Context, ds []*delivery) (slow []*delivery, err error) {
	fit, unfit := s.admit(ds)
	if err := s.bury(ctx, unfit); err != nil {
		return nil, err
	}
	alone, together := split(fit)
	alone, err = s.skipKnown(ctx, alone)
	if err != nil {
		return nil, err
	}
	if err := s.oneByOne(ctx, alone); err != nil { // first: they are older
		return nil, err
	}
	return s.together(ctx, together)
}

// admit decodes what can be handled and notes why the rest cannot.
func (s *session) admit(ds []*delivery) (fit, unfit []*delivery) {
	for _, d := range ds {
		if d.refusal == nil {
			d.refusal = s.refuse(d)
		}
		if d.refusal != nil {
			unfit = append(unfit, d)
			continue
		}
		fit = append(fit, d)
	}
	return fit, unfit
}

func (s *session) refuse(d *delivery) (err error) {
	if d.handler == nil {
		return fmt.Errorf("no handler for subject %s", d.msg.Subject())
	}
	if !s.days.Load().cover(d.day) {
		return errors.New("its ID is too old or too new to know whether it was processed")
	}
	d.payload, err = d.handler.decode(d)
	return err
}

// skipKnown settles what is done or dead already and returns the rest.
func (s *session) skipKnown(ctx context.Context, ds []*delivery) (rest []*delivery, err error) {
	if len(ds) == 0 {
		return nil, nil
	}
	var k known
	err = s.insist(ctx, func() error {
		var b pgx.Batch
		k = askKnown(&b, s.cfg.Consumer, ds)
		return away(s.db.SendBatch(ctx, &b).Close())
	})
	if err != nil {
		return nil, fmt.Errorf("look up: %w", err)
	}
	done, dead, rest := k.split(ds)
	return rest, s.settleKnown(ctx, done, dead)
}

// settleKnown ends the deliveries of what earlier ones have settled.
func (s *session) settleKnown(ctx context.Context, done, dead []*delivery) error {
	if again := redelivered(done); len(again) > 0 {
		err := s.insist(ctx, func() error { return away(forget(ctx, s.db, s.cfg.Consumer, again)) })
		if err != nil {
			return err
		}
	}
	for _, d := range done {
		s.ack(ctx, d, outcomeDuplicate)
	}
	for _, d := range dead {
		s.terminate(ctx, d, outcomeDuplicate, "already a dead letter")
	}
	return nil
}

// split separates what may run in one transaction with others: first
// deliveries, of handlers whose effects are all in the transaction.
func split(ds []*delivery) (alone, together []*delivery) {
	for _, d := range ds {
		if d.redelivered() || d.handler.call != nil {
			alone = append(alone, d)
			continue
		}
		together = append(together, d)
	}
	return alone, together
}

// together runs ds in one transaction, but for those it leaves because others
// were slow. Any error undoes the transaction, and all run one by one.
func (s *session) together(ctx context.Context, ds []*delivery) (slow []*delivery, err error) {
	if len(ds) == 0 {
		return nil, nil
	}
	start := time.Now()
	var k known
	var r round
	err = s.untilBegun(ctx, func() error {
		return inTx(ctx, s.db,
			func(b *pgx.Batch) { k = askKnown(b, s.cfg.Consumer, ds) },
			func(tx pgx.Tx) (err error) {
				_, _, rest := k.split(ds)
				r, err = s.runSome(ctx, tx, rest)
				return err
			})
	})
	if err != nil {
		s.metrics.rollbacks.Inc()
		return nil, s.apart(ctx, ds, err)
	}
	s.metrics.committed(r.ran, time.Since(start))
	for _, d := range r.ran {
		s.ack(ctx, d, outcomeCommitted)
	}
	done, dead, _ := k.split(ds)
	return r.slow, s.settleKnown(ctx, done, dead)
}

// round is what became of a batch in its transaction.
type round struct{ ran, slow []*delivery }

// runSome runs and records ds, until it has taken batchTime or the worker
// stops. What it returns are copies.
func (s *session) runSome(ctx context.Context, tx pgx.Tx, ds []*delivery) (round, error) {
	if len(ds) == 0 {
		return round{}, nil
	}
	start := time.Now()
	own := copies(ds)
	r, err := protect(ctx, s.cfg.HandlerTimeout, func(call caller) (r round, err error) {
		for _, g := range plan(own) {
			if len(r.ran) > 0 && (time.Since(start) > batchTime || s.isStopping()) {
				r.slow = append(r.slow, g.ds...)
				continue
			}
			if err := runHandler(call, tx, g.handler, g.ds); err != nil {
				return round{}, err
			}
			r.ran = append(r.ran, g.ds...)
		}
		return r, nil
	})
	if err != nil {
		return round{}, err
	}
	return r, record(ctx, tx, s.cfg.Consumer, r.ran)
}

// apart settles the messages of a transaction that failed with err. If there
// was one only, its failure is known; several take turns.
func (s *session) apart(ctx context.Context, ds []*delivery, err error) error {
	if len(ds) > 1 || isAway(err) || errors.Is(err, errDuplicate) || ctx.Err() != nil {
		return s.oneByOne(ctx, ds)
	}
	if _, err := s.countAttempt(ctx, ds[0]); err != nil {
		return err
	}
	return s.fail(ctx, ds[0], err)
}

// batchTime ends a batch of slow handlers early: its first messages wait for
// the commit, and so does everyone behind the locks they took.
const batchTime = 250 * time.Millisecond

// runHandler calls h within tx, and checks how it leaves the transaction.
func runHandler(call caller, tx pgx.Tx, h *Handler, ds []*delivery) error {
	err := call(func(ctx context.Context) error { return h.inTransaction(ctx, handlerTx{tx}, ds) })
	if err != nil {
		return err
	}
	return intact(tx)
}

// group is what one call of a handler gets.
type group struct {
	handler *Handler
	ds      []*delivery
}

// plan orders ds into calls: as few as it takes for handlers that take a set,
// while no message runs before an earlier one of its key.
func plan(ds []*delivery) []*group {
	var groups []*group
	open := map[*Handler]int{} // the group that a handler's messages may join
	latest := map[string]int{} // the last group with a message of the key
	for _, d := range ds {
		at, ok := open[d.handler]
		if !ok || d.handler.runSet == nil || (d.env.Key != "" && at < latest[d.env.Key]) {
			at = len(groups)
			groups = append(groups, &group{handler: d.handler})
			open[d.handler] = at
		}
		groups[at].ds = append(groups[at].ds, d)
		if d.env.Key != "" {
			latest[d.env.Key] = at
		}
	}
	return groups
}
