package outbox_test

import "testing"

func TestRelay_RecordsSmallBatchesTogether(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	for i := range 300 {
		l.insert(i, 1)
	}
	l.waitCaughtUp()
	rows := ask[int](l, `SELECT count(*) FROM jetbox.relay_batch`)
	early := ask[int](l, `SELECT count(*) FROM (
		SELECT published_at - lag(published_at) OVER (ORDER BY seq) AS since
		FROM jetbox.relay_batch) l
		WHERE since < interval '50 milliseconds'`)
	if rows < 2 || early > 0 {
		t.Errorf("%d of %d rows of the ledger came before their time", early, rows)
	}
	if published := ask[int](l, `SELECT sum(n) FROM jetbox.relay_batch`); published != 300 {
		t.Errorf("the ledger has %d messages, want 300", published)
	}
}
