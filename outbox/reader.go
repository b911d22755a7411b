package outbox

import (
	"context"
	"fmt"
)

// A poll that finds more than this is a backlog, walked in chunks instead.
const (
	pollRows  = 4000
	pollBytes = 8 << 20
)

// source is where the reader reads: jetbox.outbox, or in a test a model of it.
type source interface {
	// poll returns what became visible since a snapshot, in one statement.
	poll(ctx context.Context, since snapshot) (polled, error)
	// first returns the lowest id of what became visible since, 0 for none.
	first(ctx context.Context, since snapshot) (int64, error)
	// startWalk returns an id that no row of the open window is above.
	startWalk(ctx context.Context) (end int64, err error)
	// chunk calls each with p's window's rows after p's place up to id to, all of
	// one child, by id. Cut tells that it stopped short of to.
	chunk(ctx context.Context, p position, to int64, each func(row) error) (n int, cut bool, err error)
	endWalk(ctx context.Context) error
}

// reader finds the rows that became visible since its position, in order.
type reader struct {
	from source
	at   position
	out  chan<- *batch
	bell doorbell
	pace *pace
	m    *metrics

	sending  func() // called before each batch is sent
	backlog  func() // called when a poll meets its limit
	caughtUp func() // called after a poll that found nothing
}

// run reads until ctx is done.
func (r *reader) run(ctx context.Context) error {
	if err := r.bell.listen(ctx); err != nil {
		return err
	}
	for {
		n, err := r.next(ctx)
		if err == nil && n == 0 {
			err = r.bell.wait(ctx)
		} else if err == nil {
			err = r.bell.found(ctx, n)
		}
		if err != nil || ctx.Err() != nil {
			return unlessDone(ctx, fmt.Errorf("read: %w", err))
		}
	}
}

// next sends what one poll finds, or walks the window that is open. It returns
// how many rows the poll found, pollRows for a window.
func (r *reader) next(ctx context.Context) (n int, err error) {
	if !r.at.open {
		p, err := r.from.poll(ctx, r.at.snap)
		if err != nil {
			return 0, fmt.Errorf("poll: %w", err)
		}
		r.m.poll(p)
		if !p.overflow {
			return len(p.rows), r.sendPoll(ctx, p)
		}
		r.backlog()
		// It takes long, and all the while each writer would ring.
		if err := r.bell.awake(ctx); err != nil {
			return 0, err
		}
		if err := r.openWindow(ctx, p.snap); err != nil {
			return 0, fmt.Errorf("open window: %w", err)
		}
	}
	if err := r.walk(ctx); err != nil {
		return 0, fmt.Errorf("walk window: %w", err)
	}
	return pollRows, nil
}

// polled is what one poll returned: one statement, so one snapshot.
type polled struct {
	snap     snapshot
	rows     []row
	overflow bool // more rows or bytes than a poll may hold; rows are incomplete
}

// sendPoll passes a whole poll on. An empty one only moves the snapshot in
// memory: the ledger's older one still describes the same rows.
func (r *reader) sendPoll(ctx context.Context, f polled) error {
	from := r.at
	r.at = position{snap: f.snap}
	if len(f.rows) == 0 {
		r.at.replay = from.replay // as the ledger still has it
		r.caughtUp()
		return nil
	}
	for _, b := range split(f.rows, from, f.snap, r.pace.full) {
		if err := r.send(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) send(ctx context.Context, b *batch) error {
	r.sending()
	select {
	case r.out <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
