package migrations_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// producer returns a pool whose every connection is an application's.
func producer(t *testing.T) *pgxpool.Pool {
	t.Helper()
	cfg := testenv.Database(t).Config()
	cfg.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SET ROLE jetbox_producer`)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestProducer_MayEnqueueAndReadBackTheID(t *testing.T) {
	t.Parallel()
	db := producer(t)
	own := uuid.Must(uuid.NewV7())
	for name, sql := range map[string]string{
		"insert": `INSERT INTO jetbox.outbox (subject, payload, key, headers, message_id)
			VALUES ('jobs.a', '1', 'k', '{"a": "b"}', $1) RETURNING message_id`,
		"insert bytes": `INSERT INTO jetbox.outbox (subject, payload_bytes, content_type, message_id)
			VALUES ('jobs.a', 'x', 'text/plain', $1) RETURNING message_id`,
		"enqueue":  `SELECT jetbox.enqueue('jobs.a', '1', message_id => $1)`,
		"schedule": `SELECT jetbox.schedule('jobs.a', '1', message_id => $1, run_at => now() + interval '1 day')`,
		"scheduled": `INSERT INTO jetbox.scheduled (subject, payload, run_at, message_id)
			VALUES ('jobs.a', '1', now(), $1) RETURNING message_id`,
		"Debezium's view": `INSERT INTO jetbox.outboxevent (id, aggregatetype, aggregateid, type, payload)
			VALUES ($1, 'order', '17', 'placed', '1') RETURNING id`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got uuid.UUID
			if err := db.QueryRow(t.Context(), sql, own).Scan(&got); err != nil || got != own {
				t.Errorf("with an ID = %v, %v, want %v", got, err, own)
			}
			if err := db.QueryRow(t.Context(), sql, nil).Scan(&got); err != nil || got.Version() != 7 {
				t.Errorf("with NULL = %v, %v, want a UUIDv7", got, err)
			}
		})
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1') RETURNING id, message_id`); err != nil {
		t.Errorf("RETURNING id, message_id: %v", err)
	}
}

func TestProducer_MayNothingElse(t *testing.T) {
	t.Parallel()
	db := producer(t)
	for name, sql := range map[string]string{
		"forge the id":          `INSERT INTO jetbox.outbox (id, subject, payload) VALUES (1, 'jobs.a', '1')`,
		"forge the xid":         `INSERT INTO jetbox.outbox (xid, subject, payload) VALUES ('3', 'jobs.a', '1')`,
		"forge the time":        `INSERT INTO jetbox.outbox (created_at, subject, payload) VALUES (now(), 'jobs.a', '1')`,
		"insert into a child":   `INSERT INTO jetbox.outbox_0 (subject, payload) VALUES ('jobs.a', '1')`,
		"read payloads":         `SELECT payload FROM jetbox.outbox`,
		"read all":              `SELECT * FROM jetbox.outbox`,
		"return the payload":    `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1') RETURNING payload`,
		"update":                `UPDATE jetbox.outbox SET subject = 'jobs.b'`,
		"delete":                `DELETE FROM jetbox.outbox`,
		"truncate":              `TRUNCATE jetbox.outbox`,
		"lock":                  `DO 'BEGIN LOCK TABLE jetbox.outbox; END'`,
		"set the sequence":      `SELECT setval('jetbox.outbox_id_seq', 1)`,
		"postpone":              `UPDATE jetbox.scheduled SET run_at = now()`,
		"read scheduled":        `SELECT payload FROM jetbox.scheduled`,
		"read through the view": `SELECT payload FROM jetbox.outboxevent`,
		"read the status":       `SELECT * FROM jetbox.outbox_status`,
		"read the ledger":       `SELECT * FROM jetbox.relay_batch`,
		"take the lease":        `UPDATE jetbox.relay_lease SET owner = 'me'`,
		"read dead letters":     `SELECT * FROM jetbox.dead_letter`,
		"forge the inbox":       `INSERT INTO jetbox.inbox (message_id, consumer, day, subject) VALUES (jetbox.uuidv7(), 'c', '-infinity', 's')`,
		"maintain the inbox":    `SELECT jetbox.maintain_inbox('0', '0')`,
		"summarize the outbox":  `SELECT jetbox.summarize_outbox(0, 0)`,
		"make a table":          `CREATE TABLE jetbox.mine ()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuses(t, db, "42501", "", sql)
		})
	}
}
