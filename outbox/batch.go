package outbox

import (
	"cmp"
	"slices"
	"time"

	"github.com/jetboxhq/jetbox/internal/deadletter"
)

// A batch is published together and recorded as a whole: at most so many messages
// that the wait for its last ack hardly counts, and few enough bytes that
// several batches in flight stay small.
const (
	batchRows  = 8000
	batchBytes = 4 << 20
)

// batch is what the reader found, on its way through publishing to the ledger.
type batch struct {
	rows   []row // by id
	size   int
	after  position // once this batch is published
	replay bool     // it was published before

	groups map[*target]*group // what goes to each stream

	// What publishing adds for the ledger.
	stored  time.Time
	streams map[string]streamState
	dead    []deadletter.Letter
}

func (b *batch) add(r row) {
	b.rows = append(b.rows, r)
	b.size += r.size()
}

func (b *batch) lastID() int64 {
	return b.rows[len(b.rows)-1].id
}

func byID(a, b row) int { return cmp.Compare(a.id, b.id) }

// split cuts the rows of one poll, which brought the relay from p to snapshot
// to, into batches. Sorting by id, never by xid, keeps the order per key: a
// transaction that waits for another's row lock draws its id after it.
func split(rows []row, p position, to snapshot, full func(*batch) bool) []*batch {
	slices.SortFunc(rows, byID)
	batches := []*batch{{replay: p.replay}}
	for _, r := range rows {
		last := batches[len(batches)-1]
		if full(last) {
			last.after = p.within(to, last.lastID())
			last = &batch{replay: p.replay}
			batches = append(batches, last)
		}
		last.add(r)
	}
	batches[len(batches)-1].after = position{snap: to}
	return batches
}
