package integration_test

import (
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// versionsSQL counts the rows of the outbox that were locked, or written a
// second time: each would have left, or be about to leave, a dead tuple.
const versionsSQL = `
SELECT count(*) FROM jetbox.outbox
WHERE xmax::text <> '0' OR xmin::text::numeric <> mod(xid::text::numeric, 4294967296)`

func TestOutbox_HoldsEachRowAsItWasInserted(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	broker := testenv.NATSURL(t)
	l.start("relay", "relay", broker)
	l.start("worker", "worker", broker)
	const n = 5000
	l.insert(1, n)
	l.handled(n)
	if got := l.count(versionsSQL); got != 0 {
		t.Errorf("%d of %d rows have another version", got, n)
	}
	if got := l.count(`SELECT count(*) FROM jetbox.relay_batch`); got > n/50 {
		t.Errorf("the ledger has %d rows for %d messages", got, n)
	}
}
