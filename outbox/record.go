package outbox

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	// recordEvery is how long published batches wait to be recorded together, and
	// recordRows how many messages make a row of the ledger without a wait. A row
	// for each poll would be one for every two or three messages at a thousand a
	// second: some seven gigabytes a day.
	recordEvery = 50 * time.Millisecond
	recordRows  = 256
)

// record appends to the ledger what is published, until in is closed.
func (s *session) record(ctx context.Context, led *ledger, in <-chan *batch) error {
	var last time.Time
	uncovered := 0
	for b := range in {
		for b != nil {
			joined, next := gather(b, in, recordEvery-time.Since(last))
			if err := led.append(ctx, b); err != nil {
				return err
			}
			last = time.Now()
			s.inFlight.Add(-joined)
			s.m.recorded(b)
			s.healthy()
			if uncovered += len(b.rows); uncovered >= coverEvery {
				uncovered = 0
				s.uncover()
			}
			b = next
		}
	}
	return nil
}

// gather joins to b what comes within a while and fits, and counts the batches that
// b is then. Next is one that came and does not fit, if there is one.
func gather(b *batch, in <-chan *batch, within time.Duration) (joined int64, next *batch) {
	late := time.NewTimer(within)
	defer late.Stop()
	for joined = 1; len(b.rows) < recordRows && !b.after.open; joined++ {
		select {
		case next, ok := <-in:
			if !ok || !b.join(next) {
				return joined, next
			}
		case <-late.C:
			return joined, nil
		}
	}
	return joined, nil
}

// join makes b and next, which is published after it, one batch, unless a place
// within a window is between them.
func (b *batch) join(next *batch) bool {
	if b.after.open || next.after.open {
		return false
	}
	b.rows, b.dead, b.after = append(b.rows, next.rows...), append(b.dead, next.dead...), next.after
	b.replay = b.replay || next.replay
	slices.SortFunc(b.rows, byID)
	maps.Copy(b.streams, next.streams)
	return true
}
