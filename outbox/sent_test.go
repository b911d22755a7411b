package outbox_test

import (
	"testing"

	"github.com/jetboxhq/jetbox/outbox"
)

func TestReadSent_TellsEachMessageOnceAndWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	conn := l.operator()
	l.relay()
	l.insert(1, 10)
	l.waitCaughtUp()
	list, last, skipped, err := outbox.ReadSent(t.Context(), conn, 0)
	if err != nil || len(list) != 10 || skipped != 0 || list[9].OutboxID <= list[0].OutboxID || list[0].Subject != l.prefix+".x" {
		t.Fatalf("ReadSent = %+v, %d skipped, %v, want ten in order", list, skipped, err)
	}
	if newest, err := outbox.LastBatch(t.Context(), conn); err != nil || newest != last {
		t.Errorf("LastBatch = %d, %v, want %d", newest, err, last)
	}
	if list, again, _, err := outbox.ReadSent(t.Context(), conn, last); err != nil || len(list) != 0 || again != last {
		t.Errorf("ReadSent = %d more, at %d, %v, want none", len(list), again, err)
	}
	l.insert(11, 20_000)
	l.waitCaughtUp()
	list, _, skipped, err = outbox.ReadSent(t.Context(), conn, last)
	if err != nil || skipped == 0 || len(list) == 0 || int64(len(list))+skipped != 20_000 || len(list) > 9000 {
		t.Errorf("ReadSent = %d and %d skipped, %v, want 20000 together, 9000 at most", len(list), skipped, err)
	}
}
