package outbox_test

import (
	"testing"
	"time"
)

func TestRelay_RecordsSmallBatchesTogether(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	l.insert(0, 1)
	l.waitCaughtUp()
	start := time.Now()
	for i := range 200 { // fewer than make a row without a wait
		l.insert(i+1, 1)
	}
	l.waitCaughtUp()
	most := 2 + int(time.Since(start)/(50*time.Millisecond))
	if rows := ask[int](l, `SELECT count(*) FROM jetbox.relay_batch WHERE seq > 1`); rows > most {
		t.Errorf("the ledger got %d rows, want at most %d: one in 50 ms", rows, most)
	}
	if published := ask[int](l, `SELECT sum(n) FROM jetbox.relay_batch`); published != 201 {
		t.Errorf("the ledger has %d messages, want 201", published)
	}
}
