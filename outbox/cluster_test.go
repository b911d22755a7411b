package outbox_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

// pass lets the cluster count some transactions.
func (l *lab) pass(n int) {
	for range n {
		l.exec(`SELECT pg_current_xact_id()`)
	}
}

// As a dump is restored into a cluster that had counted less, and passes its ledger.
func TestRelay_PublishesWhatWasEnqueuedInAnotherClusterThanItsLedger(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stop := l.relay()
	l.insert(0, 1)
	l.waitCaughtUp()
	stop()
	l.exec(`UPDATE jetbox.relay_lease SET cluster = 1`)
	l.exec(`INSERT INTO jetbox.relay_batch (seq, epoch, snap, n)
		SELECT b.seq + 1, b.epoch, (n.x || ':' || n.x || ':')::pg_snapshot, 0
		FROM (SELECT * FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1) b, (SELECT pg_current_xact_id()::text::bigint + 50 AS x) n`)
	l.insert(1, 1)
	l.pass(100)
	l.relay()
	testenv.Eventually(t, "both to be published", func() bool {
		s, err := l.js.Stream(t.Context(), l.stream.Name)
		return err == nil && s.CachedInfo().State.Msgs == 3 && l.caughtUp()
	})
	if n := ask[int](l, `SELECT generation FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1`); n != 1 {
		t.Errorf("the relay went back %d times, want once", n)
	}
	if !ask[bool](l, `SELECT cluster = (SELECT system_identifier FROM pg_control_system()) FROM jetbox.relay_lease`) {
		t.Error("the ledger is of another cluster still")
	}
}

// The ledger alone would let it start, and it would find such a row at each poll.
func TestRelay_RefusesRowsOfTransactionsThatItsClusterHasNotBegun(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.insert(0, 1)
	l.exec(`UPDATE jetbox.outbox SET xid = '1000000000000'`)
	r, err := outbox.NewRelay(l.db.Config().ConnConfig, l.dial, outbox.RelayConfig{Streams: []jetstream.StreamConfig{l.stream}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "restore into another cluster") {
		t.Errorf("Run = %v, want what the owner has to run", err)
	}
}
