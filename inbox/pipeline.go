package inbox

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// A handler that makes one statement a message waits for Postgres most of its
// time. In a pipeline many calls of it share one round trip: each runs up to its
// statement and waits there, the statements go out together in the order of
// their messages, and each call goes on with its own answer. One call runs at a
// time, and Postgres executes what it would have executed without; what comes
// behind a failure is undone with it.
//
// This holds for the first statement of each call only: a second one may depend
// on the answer to the first, and would come too late. So a call that makes two
// ends the pipeline, and all its calls run again one by one. One that is late does
// too: it may wait for what another call holds while that waits.

// pipelined is the most calls that share a round trip.
const pipelined = 64

// errOneByOne asks for the messages of a pipeline again, each by itself: that
// tells what the pipeline could not.
var errOneByOne = errors.New("not to be run in a pipeline")

// pipeline runs h for ds in one round trip.
func (h *Handler) pipeline(ctx context.Context, tx pgx.Tx, ds []*delivery) error {
	p := &pipeline{h: h, tx: tx, patience: time.NewTimer(batchTime)}
	defer p.patience.Stop()
	p.ctx, p.cancel = context.WithCancel(ctx)
	start := time.Now()
	err := p.run(ctx, ds)
	switch {
	case errors.Is(err, errOneByOne), time.Since(start) > batchTime:
		h.streak.lose()
	case err == nil:
		h.streak.win()
	}
	return err
}

type pipeline struct {
	h      *Handler
	tx     pgx.Tx
	ctx    context.Context // of all calls
	cancel context.CancelFunc
	calls  []*call
	over   atomic.Bool // no call makes a statement any more

	spent    time.Duration // in calls
	patience *time.Timer
}

// run ends when all calls have. Their context ends with the pipeline; that of the
// batch, with which pgx would close the connection, does not.
func (p *pipeline) run(ctx context.Context, ds []*delivery) (err error) {
	defer p.end()
	defer func() {
		if v := recover(); v != nil { // of what encodes an argument
			err = errors.Join(errOneByOne, panicError(v))
		}
	}()
	asked, b, err := p.begin(ds)
	if err != nil || len(asked) == 0 {
		return err
	}
	results := p.tx.SendBatch(ctx, b)
	err = p.answer(asked, results)
	if closed := results.Close(); err == nil && closed != nil {
		err = errors.Join(errOneByOne, closed)
	}
	return err
}

// begin calls the handler for each of ds, up to its statement.
func (p *pipeline) begin(ds []*delivery) (asked []*call, b *pgx.Batch, err error) {
	b = &pgx.Batch{}
	for i, d := range ds {
		c := newCall(p, i)
		p.calls = append(p.calls, c)
		if !p.let(c, func() { go c.run(d) }) {
			return nil, nil, errOneByOne
		}
		switch state, err := c.look(); {
		case err != nil:
			return nil, nil, blamed(i, err)
		case state == callEnded: // without a statement
			continue
		case !c.plain:
			return nil, nil, errOneByOne
		}
		b.Queue(c.sql, c.args...)
		asked = append(asked, c)
	}
	return asked, b, nil
}

// answer lets each call go on with the result of its statement.
func (p *pipeline) answer(asked []*call, results pgx.BatchResults) error {
	for i, c := range asked {
		rows, _ := results.Query() // its error is the rows' too
		if state, _ := c.look(); state != callWaits || !p.let(c, func() { c.answer <- rows }) {
			p.end() // before anybody else touches the rows
			rows.Close()
			return errOneByOne
		}
		open := rows.Next()
		rows.Close()
		state, err := c.look()
		failed := rows.Err()
		switch {
		case open, state != callEnded, failed != nil && (err == nil || i == 0 && p.isAnybodys(failed) || p.tx.Conn().IsClosed()):
			return errors.Join(errOneByOne, failed)
		case err != nil:
			return blamed(c.index, err)
		}
	}
	return nil
}

// isAnybodys reports an error of the first statement that may be about another:
// pgx prepares and encodes all of them before it sends one, and in the simple
// protocol Postgres reads all of them first.
func (p *pipeline) isAnybodys(err error) bool {
	_, before := errors.AsType[pgx.ErrPreprocessingBatch](err)
	return before || p.tx.Conn().Config().DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol
}

// blamed is the failure of a call, unless the pipeline has a part in it: the calls
// share the time of one.
func blamed(index int, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errors.Join(errOneByOne, err)
	}
	return &memberError{index: index, error: err}
}

// let gives c the turn, and says whether it came back in time.
func (p *pipeline) let(c *call, turn func()) bool {
	start := time.Now()
	defer func() { p.spent += time.Since(start) }()
	p.patience.Reset(batchTime - p.spent)
	turn()
	select {
	case <-c.back:
		return p.ctx.Err() == nil
	case <-p.patience.C:
		return false
	}
}

// end lets the calls that wait go without an answer, one after another. A call
// that did not come back may wait for what one of them holds; it is told last.
func (p *pipeline) end() {
	if p.over.Swap(true) {
		return
	}
	p.spent = 0
	for _, c := range p.calls {
		leave := func() { close(c.answer) } // also to a statement that has outlived its call
		if state, _ := c.look(); state == callWaits {
			p.let(c, leave)
		} else {
			leave()
		}
	}
	p.cancel()
	for _, c := range p.calls {
		c.join()
	}
}
