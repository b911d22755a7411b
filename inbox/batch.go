package inbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// process settles every delivery of batch, or gives all that are left back to
// the broker when Postgres is away or the worker stops.
func (s *session) process(ctx context.Context, batch []*delivery) {
	for parts := [][]*delivery{batch}; len(parts) > 0; {
		now, again := unique(parts[0])
		left, err := s.settleAll(ctx, now)
		if err == nil && s.isStopping() {
			err = errStopping // for what is left
		}
		if err != nil {
			s.postpone(ctx, batch, err)
			return
		}
		parts = filled(slices.Concat(left, [][]*delivery{again}, parts[1:])...)
	}
}

// settleAll settles ds, except for those it leaves, in the order in which they
// are to run.
func (s *session) settleAll(ctx context.Context, ds []*delivery) (left [][]*delivery, err error) {
	fit, unfit := s.admit(ds)
	if err := s.bury(ctx, unfit); err != nil {
		return nil, err
	}
	first, again, alone := split(fit)
	retried, suspects, err := s.lookBack(ctx, again)
	if err != nil {
		return nil, err
	}
	if err := s.oneByOne(ctx, slices.Concat(suspects, alone)); err != nil { // they are older
		return nil, err
	}
	for _, ds := range [][]*delivery{retried, first} { // apart: what failed once may again
		parts, err := s.together(ctx, ds)
		if err != nil {
			return nil, err
		}
		left = append(left, parts...)
	}
	return left, nil
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

// refuse decodes d, and says why it is not to be handled. A panic in a payload's
// own UnmarshalJSON is such a reason.
func (s *session) refuse(d *delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicError(v)
		}
	}()
	if d.handler == nil {
		return fmt.Errorf("no handler for subject %s", d.msg.Subject())
	}
	if !s.days.Load().cover(d.day) {
		return errors.New("its ID is too old or too new to know whether it was processed")
	}
	if !isText(d.msg.Subject()) { // the inbox keeps it
		return errNotText("subject")
	}
	d.payload, err = d.handler.decode(d)
	return err
}

// lookBack settles what of ds, redelivered all, is done or dead already. Of the
// rest it separates what was retried from suspects: deliveries that have not all
// ended on record, or attempts that have come to their end.
func (s *session) lookBack(ctx context.Context, ds []*delivery) (retried, suspects []*delivery, err error) {
	if len(ds) == 0 {
		return nil, nil, nil
	}
	k, err := s.lookUp(ctx, ds)
	if err != nil {
		return nil, nil, err
	}
	done, dead, rest := k.split(ds)
	for _, d := range rest {
		if d.explained() && !d.suspect && d.attempt <= d.handler.limits.MaxAttempts {
			retried = append(retried, d)
			continue
		}
		suspects = append(suspects, d)
	}
	return retried, suspects, s.settleKnown(ctx, done, dead)
}

// settleKnown ends the deliveries of what earlier ones have settled.
func (s *session) settleKnown(ctx context.Context, done, dead []*delivery) error {
	if again := withHistory(done); len(again) > 0 {
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

// split separates what may run in one transaction with others, the first
// deliveries of it and those after a first, from what may not.
func split(ds []*delivery) (first, again, alone []*delivery) {
	for _, d := range ds {
		switch {
		case d.apart || d.handler.call != nil:
			alone = append(alone, d)
		case d.again():
			again = append(again, d)
		default:
			first = append(first, d)
		}
	}
	return first, again, alone
}

// together runs ds in one transaction, but for those it leaves: they come after
// slow ones, or the transaction was lost and they run in parts.
func (s *session) together(ctx context.Context, ds []*delivery) (left [][]*delivery, err error) {
	if len(ds) == 0 {
		return nil, nil
	}
	start := time.Now()
	var at atomic.Pointer[group]
	k, r, err := s.commitTogether(ctx, ds, &at)
	switch {
	case errors.Is(err, errTried):
		return [][]*delivery{ds}, nil
	case err != nil:
		s.metrics.rollbacks.Inc()
		return s.takeApart(ctx, ds, at.Load(), err)
	}
	s.metrics.committed(r.ran, time.Since(start))
	for _, d := range r.ran {
		s.ack(ctx, d, outcomeCommitted)
	}
	if !ds[0].again() { // those say nothing about the rest
		s.caution.learn(len(r.failed) > 0)
	}
	if err := s.settleFailed(ctx, r.failed); err != nil {
		return nil, err
	}
	done, dead, _ := k.split(ds)
	return filled(r.slow), s.settleKnown(ctx, done, dead)
}

// commitTogether runs and records what is not known of ds, and commits it.
func (s *session) commitTogether(ctx context.Context, ds []*delivery, at *atomic.Pointer[group]) (k known, r round, err error) {
	err = s.untilBegun(ctx, func() error {
		resume := func() {}
		defer func() { resume() }()
		return inTx(ctx, s.db,
			func(b *pgx.Batch) {
				k = askKnown(b, s.cfg.Consumer, ds)
				b.Queue(savepointSQL)
			},
			func(tx pgx.Tx, last *pgx.Batch) (err error) {
				if k.remind(ds) {
					return errTried
				}
				_, _, rest := k.split(ds)
				if r, err = s.runSome(ctx, tx, rest, at); err == nil {
					record(last, s.cfg.Consumer, r.ran)
					resume = s.batches.yield()
				}
				return err
			})
	})
	return k, r, err
}

// errTried reports first deliveries of which earlier attempts are on record: how
// many there were decides how they run.
var errTried = errors.New("tried before")

// round is what became of a batch in its transaction.
type round struct{ ran, failed, slow []*delivery }

// runSome runs ds until it has taken batchTime or the worker stops, and puts the
// failures on record.
func (s *session) runSome(ctx context.Context, tx pgx.Tx, ds []*delivery, at *atomic.Pointer[group]) (r round, err error) {
	if len(ds) == 0 {
		return round{}, nil
	}
	start := time.Now()
	limit := s.caution.limit()
	todo := fence(plan(ds, limit), limit)
	p, err := protect(ctx, func(call caller) (*pass, error) {
		p := &pass{tx: tx, call: call, at: at, todo: todo, limit: limit}
		return p, p.run(ctx, func() bool { return time.Since(start) > batchTime || s.isStopping() })
	})
	if err != nil {
		return round{}, err
	}
	r.ran = messages(p.ran, func(g *group) []*delivery { return g.own })
	r.slow = messages(p.todo, func(g *group) []*delivery { return g.ds })
	r.failed = p.failed
	return r, noteFailures(ctx, tx, s.cfg.Consumer, r.failed)
}

// batchTime ends a batch of slow handlers early: its first messages wait for
// the commit, and so does everyone behind the locks they took.
const batchTime = 250 * time.Millisecond

// takeApart says how the messages of a transaction that was lost to err run
// instead: what a single message did is settled, or done by it alone; what may
// be anybody's doing is halved. One that is slow is looked for in fewer steps, as
// each takes the handler's whole time, and those to come are more careful.
func (s *session) takeApart(ctx context.Context, ds []*delivery, at *group, err error) ([][]*delivery, error) {
	if ctx.Err() != nil {
		return nil, err
	}
	if len(ds) == 1 {
		at = &group{ds: ds}
	}
	if at != nil && len(at.ds) > 1 {
		at = at.suspects(err)
	}
	if (at == nil || len(at.ds) > 1) && errors.Is(err, errHandlerTimeout) {
		s.caution.learn(true)
		return slices.Collect(slices.Chunk(ds, (len(ds)+7)/8)), nil
	}
	if at == nil || len(at.ds) > 1 {
		return [][]*delivery{ds[:len(ds)/2], ds[len(ds)/2:]}, nil
	}
	i := slices.Index(ds, at.ds[0])
	if !isAway(err) && !errors.Is(err, errDuplicate) {
		return filled(ds[:i], ds[i+1:]), s.failAlone(ctx, ds[i], err)
	}
	ds[i].apart = true
	return filled(ds[:i], ds[i:i+1], ds[i+1:]), nil
}

// failAlone settles d, which failed with cause.
func (s *session) failAlone(ctx context.Context, d *delivery, cause error) error {
	if _, err := s.lookUp(ctx, []*delivery{d}); err != nil {
		return err
	}
	return s.fail(ctx, d, cause)
}

// settleFailed asks for another attempt at ds, whose failures are on record, or
// gives them up.
func (s *session) settleFailed(ctx context.Context, ds []*delivery) error {
	var dead []*delivery
	for _, d := range ds {
		if d.isLast(d.failure) {
			dead = append(dead, d)
			continue
		}
		s.retry(ctx, d, d.failure)
	}
	return s.bury(ctx, dead)
}

// runHandler calls h within tx, and checks how it leaves the transaction.
func runHandler(call caller, tx pgx.Tx, h *Handler, ds []*delivery, limit int) error {
	err := call(h.limits.Timeout, func(ctx context.Context) error {
		return h.inTransaction(ctx, tx, ds, limit)
	})
	if err != nil {
		return err
	}
	return intact(tx)
}

// filled drops the parts that are empty.
func filled(parts ...[]*delivery) [][]*delivery {
	return slices.DeleteFunc(parts, func(ds []*delivery) bool { return len(ds) == 0 })
}
