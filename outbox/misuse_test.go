package outbox_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

// The inbox refuses an ID from before it remembers, so a message for a time that
// has passed has one of now.
func TestSchedule_GivesAMessageForThePastAnIDOfNow(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	begun := time.Now()
	for _, at := range []time.Time{{}, begun.AddDate(0, 0, -60), begun.Add(time.Hour)} {
		if err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO jetbox.scheduled (subject, payload, run_at) VALUES ('jobs.a', '1', $1)`, at); err != nil {
				return err
			}
			return outbox.Schedule(t.Context(), tx, at, outbox.Message{Subject: "jobs.a", Payload: 1})
		}); err != nil {
			t.Fatal(err)
		}
	}
	rows, _ := db.Query(t.Context(), `SELECT message_id FROM jetbox.scheduled`)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil || len(ids) != 6 {
		t.Fatalf("%d messages, %v, want 6", len(ids), err)
	}
	for _, id := range ids {
		sec, _ := id.Time().UnixTime()
		if at := time.Unix(sec, 0); at.Before(begun.Add(-time.Minute)) || at.After(begun.Add(2*time.Hour)) {
			t.Errorf("ID %s is of %v", id, at)
		}
	}
}

func TestNewRelay_RefusesARegistryThatHasARelay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cfg := outbox.RelayConfig{Streams: []jetstream.StreamConfig{l.stream}, Metrics: prometheus.NewRegistry()}
	for i, fails := range []bool{false, true} {
		if _, err := outbox.NewRelay(l.db.Config().ConnConfig, l.dial, cfg); (err != nil) != fails {
			t.Errorf("NewRelay number %d = %v", i+1, err)
		}
	}
}
