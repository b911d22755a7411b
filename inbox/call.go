package inbox

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"
)

type callState int

const (
	callRuns callState = iota
	callWaits
	callEnded
)

// call is one call of a pipeline's handler, in a goroutine of its own. It and the
// pipeline hand each other the turn.
type call struct {
	p      *pipeline
	index  int
	answer chan pgx.Rows // to its statement; closed: there is none
	back   chan struct{} // it waits, or has ended

	// What it waits with.
	sql   string
	args  []any
	plain bool

	mu    sync.Mutex // for whoever uses its transaction beside it, or after it
	state callState
	err   error // once ended
}

func newCall(p *pipeline, index int) *call {
	return &call{p: p, index: index, answer: make(chan pgx.Rows), back: make(chan struct{}, 2)}
}

// run ends the call, come what may: a panic, a Goexit.
func (c *call) run(d *delivery) {
	err := errGoexit
	defer func() {
		c.mu.Lock()
		c.state, c.err = callEnded, err
		c.mu.Unlock()
		c.back <- struct{}{}
	}()
	err = survive(c.p.ctx, func(ctx context.Context) error {
		return c.p.h.run(ctx, &callTx{handlerTx: handlerTx{c.p.tx}, ctx: ctx, call: c}, d)
	})
}

func (c *call) look() (callState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.err
}

// join waits until the call has ended.
func (c *call) join() {
	for {
		if state, _ := c.look(); state == callEnded {
			return
		}
		<-c.back
	}
}

var errTxShared = errors.New("another statement of the same call waits for its answer, or the call has ended")

// ask waits for the answer to a statement.
func (c *call) ask(sql string, args []any, plain bool) (pgx.Rows, error) {
	if err := c.wait(sql, args, plain); err != nil {
		return nil, err
	}
	c.back <- struct{}{}
	rows, ok := <-c.answer
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == callWaits {
		c.state = callRuns
	}
	if !ok {
		return nil, context.Canceled
	}
	return rows, nil
}

// wait notes the statement with which the call waits.
func (c *call) wait(sql string, args []any, plain bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.p.over.Load():
		return context.Canceled
	case c.state != callRuns:
		return errTxShared
	}
	c.state, c.sql, c.args, c.plain = callWaits, sql, args, plain
	return nil
}
