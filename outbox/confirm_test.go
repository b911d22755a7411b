package outbox

import (
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// oneBatchSQL has the relay have published all that the outbox holds.
const oneBatchSQL = `
INSERT INTO jetbox.relay_batch (seq, epoch, snap, n, first_id, last_id, streams, published_at)
SELECT 1, 1, pg_current_snapshot(), count(*), min(id), max(id), '{"S": {"last_seq": 5}}', now() - interval '1 minute' FROM jetbox.outbox`

// On a stream with others' messages, one of ours is gone.
func TestConfirmation_MissesNoLossAndTakesNoDecisionForOne(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO jetbox.outbox (subject, payload) SELECT 'others.x', '1' FROM generate_series(1, 1200)`)
	exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ('ours.x', '1')`)
	exec(oneBatchSQL)
	for _, tt := range []struct {
		what, does, undoes string
		want               int64
	}{
		{"nothing else", `SELECT`, `SELECT`, 1},
		{
			"redriven, and waits", `INSERT INTO jetbox.scheduled (message_id, subject, payload, run_at)
				SELECT message_id, subject, payload, now() + interval '1 hour' FROM jetbox.outbox WHERE subject = 'ours.x'`,
			`DELETE FROM jetbox.scheduled`, 0,
		},
		{
			"discarded by a person, though it never was in the stream", `INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
				SELECT message_id, '$relay', (now() AT TIME ZONE 'UTC')::date, subject FROM jetbox.outbox WHERE subject = 'ours.x'`,
			`DELETE FROM jetbox.inbox`, 0,
		},
		{
			"redriven, and published", `INSERT INTO jetbox.outbox (message_id, subject, payload)
				SELECT message_id, subject, payload FROM jetbox.outbox WHERE subject = 'ours.x'`,
			`SELECT`, 0,
		},
	} {
		exec(tt.does)
		c := confirmation{stream: "S", consumer: "w", goesTo: func(string, string) bool { return true }}
		_, got, err := c.missing(t.Context(), conn, settled{filters: []string{"ours.>"}, upTo: 10}, time.Now())
		if err != nil || got != tt.want {
			t.Errorf("%s: missing from batch %d, %v, want %d", tt.what, got, err, tt.want)
		}
		exec(tt.undoes)
	}
}

// A batch may go to several streams, and a consumer's filter may be wider than its
// stream's subjects.
func TestConfirmation_MissesNothingThatWentToAnotherStream(t *testing.T) {
	t.Parallel()
	conn := openConn(t, testenv.Database(t))
	for _, sql := range []string{`INSERT INTO jetbox.outbox (subject, payload) VALUES ('others.x', '1')`, oneBatchSQL} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	p := &publisher{targets: []*target{{name: "S", subjects: []string{"ours.>"}}, {name: "T", subjects: []string{"others.>"}}}}
	for _, filters := range [][]string{nil, {">"}, {"*.x"}} {
		c := confirmation{stream: "S", consumer: "w", goesTo: p.goesTo}
		if _, got, err := c.missing(t.Context(), conn, settled{filters: filters, upTo: 10}, time.Now()); err != nil || got != 0 {
			t.Errorf("filters %v: missing from batch %d, %v, want nothing", filters, got, err)
		}
	}
}

func TestConfirmation_GoesOnWhereThisRelayWas(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ epoch, seq, want int64 }{
		"after a cut":                    {8, 100, 50},
		"another has led":                {9, 100, 0},
		"Postgres has taken some back":   {8, 40, 0},
		"this very batch was the newest": {8, 50, 50},
	} {
		c := confirmation{seq: 50, epoch: 7}
		if c.goOn(tt.epoch, tt.seq); c.seq != tt.want || c.epoch != tt.epoch {
			t.Errorf("%s: goes on after batch %d of epoch %d, want %d of %d", name, c.seq, c.epoch, tt.want, tt.epoch)
		}
	}
}
