package outbox

import (
	"sync/atomic"
	"time"
)

// pace is how many messages make a batch: as many as are published within a
// moment. What an interruption finds unrecorded is published again, so where a
// broker is slow and often away, only small batches get anywhere.
type pace struct{ rows atomic.Int64 }

// leastRows is worth a round trip even where one takes a second; a session begins
// with so many.
const leastRows = 500

func newPace() *pace {
	p := &pace{}
	p.rows.Store(leastRows)
	return p
}

// full reports whether b has enough.
func (p *pace) full(b *batch) bool {
	return len(b.rows) >= int(p.rows.Load()) || b.size >= batchBytes
}

// learn adjusts to how long n messages took.
func (p *pace) learn(n int, took time.Duration) {
	rows := p.rows.Load()
	switch {
	case took > 1500*time.Millisecond:
		p.rows.Store(max(min(rows, int64(n))/2, leastRows))
	case took < 400*time.Millisecond && int64(n) >= rows:
		p.rows.Store(min(2*rows, batchRows))
	}
}
