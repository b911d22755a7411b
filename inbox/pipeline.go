package inbox

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// A handler that makes one statement a message waits for Postgres most of its
// time. In a pipeline many calls of it share one round trip: each runs up to its
// statement and waits there, the statements go out together in the order of
// their messages, and each call goes on with its own answer. Only one call runs
// at a time, and Postgres executes what it would have executed without it, in
// that order: the statement of a call cannot depend on the answer to another.
//
// This holds for the first statement only. A call that makes a second one ends
// the pipeline, and all of its calls run again one by one.

// pipelined is the most calls that share a round trip.
const pipelined = 64

// errOneByOne asks for the messages of a pipeline again, each by itself: that
// tells what the pipeline could not.
var errOneByOne = errors.New("not to be run in a pipeline")

// streak counts the calls in a row of which each made one statement at most and
// was quick: how a handler is found to be fit for a pipeline.
type streak struct{ calls atomic.Int32 }

const (
	longStreak = 32
	// penalty is how many more calls it takes after a pipeline was in vain.
	penalty = 1000
	// quick is what a call may take, so that a pipeline takes half of batchTime.
	quick = batchTime / (2 * pipelined)
)

func (s *streak) long() bool { return s.calls.Load() >= longStreak }
func (s *streak) lose()      { s.calls.Store(-penalty) }

func (s *streak) saw(statements int, took time.Duration) {
	switch {
	case statements > 1:
		s.calls.Store(min(s.calls.Load(), 0))
	case took <= quick && !s.long(): // a busy machine makes one slow now and then
		s.calls.Add(1)
	}
}

// runOne runs h for d, and watches how many statements it makes.
func (h *Handler) runOne(ctx context.Context, tx pgx.Tx, d *delivery) error {
	watched := &callTx{handlerTx: handlerTx{tx}, ctx: ctx}
	start := time.Now()
	err := h.run(ctx, watched, d)
	if err == nil {
		h.streak.saw(watched.statements, time.Since(start))
	}
	return err
}

// pipeline runs h for ds in one round trip.
func (h *Handler) pipeline(ctx context.Context, tx pgx.Tx, ds []*delivery) error {
	ctx, cancel := context.WithCancel(ctx)
	p := &pipeline{h: h, ctx: ctx, tx: tx, heard: make(chan struct{}, 1)}
	err := p.run(ds)
	cancel()
	for _, c := range p.calls {
		c.leave()
	}
	if errors.Is(err, errOneByOne) {
		h.streak.lose()
	}
	return err
}

type pipeline struct {
	h     *Handler
	ctx   context.Context // of all calls
	tx    pgx.Tx
	calls []*call
	heard chan struct{} // the one call that runs has made its statement, or ended
	spent time.Duration // in calls
}

// call is one call of a pipeline's handler. It and the pipeline hand each other
// the turn through channels, and what the other may read with it.
type call struct {
	p      *pipeline
	index  int
	tx     callTx
	sql    string
	args   []any
	answer chan pgx.Rows // closed: there is none
	ended  bool
	err    error
}

func (p *pipeline) run(ds []*delivery) error {
	var b pgx.Batch
	var asked []*call
	for i, d := range ds {
		c := p.begin(i, d)
		switch {
		case p.late(), c.tx.statements > 1:
			return errOneByOne
		case c.err != nil:
			return &memberError{index: i, error: c.err}
		case !c.ended:
			b.Queue(c.sql, c.args...)
			asked = append(asked, c)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	results := p.tx.SendBatch(p.ctx, &b)
	err := p.answer(asked, results)
	if closed := results.Close(); err == nil && closed != nil {
		err = fmt.Errorf("%w: %w", errOneByOne, closed)
	}
	return err
}

// answer lets each call go on with the result of its statement.
func (p *pipeline) answer(asked []*call, results pgx.BatchResults) error {
	for i, c := range asked {
		rows, _ := results.Query() // its error is the rows' too
		p.let(func() { c.answer <- rows })
		open := rows.Next()
		rows.Close()
		switch err := rows.Err(); {
		case p.late(), !c.ended, open, err != nil && c.err == nil: // or it keeps quiet about a failure
			return errors.Join(errOneByOne, err)
		case err != nil && i == 0: // all fail here when one's arguments do not fit
			return c.err
		case c.err != nil:
			return &memberError{index: c.index, error: c.err}
		}
	}
	return nil
}

// late reports calls that together took too long for their batch or their
// context, which by themselves may not.
func (p *pipeline) late() bool { return p.spent > batchTime || p.ctx.Err() != nil }

// begin calls the handler for d up to its statement.
func (p *pipeline) begin(i int, d *delivery) *call {
	c := &call{p: p, index: i, answer: make(chan pgx.Rows)}
	c.tx = callTx{handlerTx: handlerTx{p.tx}, ctx: p.ctx, call: c}
	p.calls = append(p.calls, c)
	p.let(func() { go c.run(d) })
	return c
}

// let gives a call the turn and waits until it comes back.
func (p *pipeline) let(turn func()) {
	start := time.Now()
	turn()
	<-p.heard
	p.spent += time.Since(start)
}

// run ends with ended set, come what may: a panic, a Goexit.
func (c *call) run(d *delivery) {
	err := errGoexit
	defer func() {
		c.ended, c.err = true, err
		c.p.heard <- struct{}{}
	}()
	err = survive(c.p.ctx, func(ctx context.Context) error { return c.p.h.run(ctx, &c.tx, d) })
}

// ask waits for the answer to a call's statement. An error says that the
// pipeline has ended.
func (c *call) ask(sql string, args []any) (pgx.Rows, error) {
	if err := c.p.ctx.Err(); err != nil {
		return nil, err
	}
	c.sql, c.args = sql, args
	c.p.heard <- struct{}{}
	rows, ok := <-c.answer
	if !ok {
		return nil, c.p.ctx.Err()
	}
	return rows, nil
}

// leave ends a call that still waits, once the pipeline's context is done.
func (c *call) leave() {
	if !c.ended {
		close(c.answer)
		<-c.p.heard
	}
}
