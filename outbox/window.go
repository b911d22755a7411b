package outbox

import (
	"context"
	"fmt"
)

// A backlog is a window between two snapshots, walked by id in chunks: constant
// memory for a transaction of ten million rows or a day of downtime. The ledger
// row of each batch holds the place, so a restart resumes there.
const (
	chunkIDs = 3 * batchRows
	// The first chunk is a small one: until it has been read, nothing is published.
	firstIDs = 4000
	// An empty chunk makes the next one larger, to cross the gaps that a jump of
	// the sequence or a rollback leaves.
	maxChunkIDs = 1 << 20
	childBits   = 24 // ids per child of the ring, as in migrations
	children    = 8
)

// lapOf tells how many children of the ring were filled before the one with id.
func lapOf(id int64) int64 { return id >> childBits }

// openWindow freezes to as the window's end and stands before its first row.
func (r *reader) openWindow(ctx context.Context, to snapshot) error {
	first, err := r.from.first(ctx, r.at.snap)
	if err != nil {
		return fmt.Errorf("find start: %w", err)
	}
	r.at = r.at.within(to, first-1)
	return nil
}

// walk sends the rest of the open window, then a batch without rows that closes it.
func (r *reader) walk(ctx context.Context) error {
	end, err := r.from.startWalk(ctx)
	if err != nil {
		return err
	}
	if err := r.walkTo(ctx, end); err != nil {
		return err
	}
	if err := r.from.endWalk(ctx); err != nil {
		return err
	}
	r.at = r.at.after()
	return r.send(ctx, &batch{after: r.at})
}

func (r *reader) walkTo(ctx context.Context, end int64) error {
	for step := int64(firstIDs); r.at.pos < end; {
		lapEnd := (lapOf(r.at.pos+1)+1)<<childBits - 1
		to := min(r.at.pos+step, lapEnd, end)
		n, cut, err := r.chunk(ctx, to)
		if err != nil {
			return err
		}
		switch {
		case cut:
			step = chunkIDs // the chunk's end was not reached: r.at.pos is its last row
			continue
		case n == 0:
			step = min(step*4, maxChunkIDs)
		default:
			step = chunkIDs
		}
		r.at.pos = to
	}
	return nil
}

// chunk sends the window's rows up to id to as full batches, while they arrive.
func (r *reader) chunk(ctx context.Context, to int64) (n int, cut bool, err error) {
	b := &batch{replay: r.at.replay}
	n, cut, err = r.from.chunk(ctx, r.at, to, func(one row) error {
		b.add(one)
		if !r.pace.full(b) {
			return nil
		}
		full := b
		b = &batch{replay: r.at.replay}
		return r.sendChunk(ctx, full)
	})
	if err == nil && len(b.rows) > 0 {
		err = r.sendChunk(ctx, b)
	}
	return n, cut, err
}

func (r *reader) sendChunk(ctx context.Context, b *batch) error {
	r.at.pos = b.lastID()
	b.after = r.at
	return r.send(ctx, b)
}
