package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// control is a positive control: a bug that the checker must see. Each is
// planted from outside, in the schema or on the wire, so that the binary under
// test is always the one that is shipped.
type control struct {
	bug string
	sql string
	// wire is planted on the way to NATS; nil for none.
	wire func(*lab) error
}

// trigger makes a trigger function of body, for each row of table.
func trigger(when, table, body string) string {
	return fmt.Sprintf(`
CREATE FUNCTION nemesis.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN %s END $$;
CREATE TRIGGER a_sabotage %s ON %s FOR EACH ROW EXECUTE FUNCTION nemesis.sabotage()`, body, when, table)
}

// aside is a session of its own within a session: what it does is committed
// whatever becomes of the transaction.
const aside = `
IF 'aside' = ANY (coalesce(dblink_get_connections(), '{}')) IS NOT TRUE THEN
	PERFORM dblink_connect('aside', format('host=127.0.0.1 port=%s dbname=jetbox user=postgres password=PASSWORD', inet_server_port()));
	PERFORM dblink_exec('aside', 'SET session_replication_role = replica');
END IF;
`

var controls = map[string]control{
	"records-before-publish": {
		bug: "a batch's record covers what is not published yet",
		sql: trigger("BEFORE INSERT", "jetbox.relay_batch", `
			IF NEW.rewound_to IS NULL THEN NEW.snap := pg_current_snapshot(); NEW.prev_snap := NULL; NEW.pos_id := NULL; END IF; RETURN NEW;`),
	},
	"acks-before-commit": {bug: "every message is acked as it is delivered", wire: ackAll},
	"reads-past-late-commits": {
		bug: "the watermark is off by one, so a transaction that commits late is skipped",
		sql: trigger("BEFORE INSERT", "jetbox.outbox", `NEW.xid := (pg_current_xact_id()::text::bigint - 1)::text::xid8; RETURN NEW;`),
	},
	"remembers-nothing": {
		bug: "the inbox takes no note",
		sql: trigger("BEFORE INSERT", "jetbox.inbox", `RETURN NULL;`),
	},
	"notes-in-another-transaction": {
		bug: "the inbox is written beside the transaction of the effects",
		sql: `CREATE EXTENSION dblink;` + trigger("BEFORE INSERT", "jetbox.inbox", aside+`
			PERFORM dblink_exec('aside', format('INSERT INTO jetbox.inbox (message_id, consumer, day, subject, result)
				VALUES (%L, %L, %L, %L, %L)', NEW.message_id, NEW.consumer, NEW.day, NEW.subject, NEW.result)); RETURN NULL;`),
	},
	"enqueues-outside-the-transaction": {
		bug: "the outbox is written beside the application's transaction",
		sql: `CREATE EXTENSION dblink;` + trigger("BEFORE INSERT", "jetbox.outbox", aside+`
			PERFORM dblink_exec('aside', format('INSERT INTO jetbox.outbox (message_id, subject, key, payload)
				VALUES (%L, %L, %L, %L)', NEW.message_id, NEW.subject, NEW.key, NEW.payload)); RETURN NULL;`),
	},
	"looks-but-does-not-lock": {
		bug: "the inbox is asked before, and has no unique key",
		sql: `ALTER TABLE jetbox.inbox DROP CONSTRAINT inbox_pkey; CREATE INDEX ON jetbox.inbox (message_id)`,
	},
	"never-looks-back": {
		bug: "the relay does not know what the broker had acknowledged",
		sql: trigger("BEFORE INSERT", "jetbox.relay_batch", `NEW.streams := '{}'; RETURN NEW;`),
	},
	"knows-streams-by-name-alone": {
		bug: "a stream's last sequence is not compared",
		sql: trigger("BEFORE INSERT", "jetbox.relay_batch", `
			SELECT coalesce(jsonb_object_agg(key, jsonb_set(value, '{last_seq}', '0')), '{}') INTO NEW.streams FROM jsonb_each(NEW.streams); RETURN NEW;`),
	},
	"no-fencing": {
		bug: "a relay that was replaced can still record",
		sql: `ALTER TABLE jetbox.relay_batch DROP CONSTRAINT relay_batch_pkey;` +
			trigger("BEFORE UPDATE", "jetbox.relay_lease", `NEW.epoch := OLD.epoch; RETURN NEW;`),
	},
	"lease-never-ends": {
		bug: "leadership is not given up by a relay that died",
		sql: trigger("BEFORE UPDATE", "jetbox.relay_lease", `NEW.expires_at := now() + interval '1 hour'; RETURN NEW;`),
	},
	"any-order-per-key": {
		bug: "a key's messages are published in another order than they were committed",
		sql: trigger("BEFORE INSERT", "jetbox.outbox", `NEW.id := NEW.id # 1; RETURN NEW;`),
	},
	"asynchronous-commits": {
		bug: "a row that a crash can take back is published",
		sql: `CREATE OR REPLACE FUNCTION jetbox.announce() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN
			IF NOT pg_try_advisory_xact_lock_shared(116983976849272) THEN PERFORM pg_notify('jetbox_outbox', ''); END IF;
			RETURN pg_current_xact_id(); END $$`,
	},
	"drops-dead-letters": {
		bug: "what fails for good leaves no letter",
		sql: trigger("BEFORE INSERT", "jetbox.dead_letter", `RETURN NULL;`),
	},
	"prunes-at-the-ack": {
		bug: "the outbox forgets what the broker has acknowledged",
		sql: trigger("AFTER INSERT", "jetbox.relay_batch", `
			DELETE FROM jetbox.outbox WHERE id BETWEEN NEW.first_id AND NEW.last_id; RETURN NULL;`),
	},
	"replays-under-the-old-id": {
		bug: "what is published again has the ID that the broker's duplicate window knows",
		sql: trigger("BEFORE INSERT", "jetbox.relay_batch", `NEW.generation := 0; NEW.replay := false; RETURN NEW;`),
	},
	"logs-a-payload": {
		bug: "an error carries the payload into a log",
		sql: `ALTER FUNCTION nemesis.handle(jetbox.message) RENAME TO honest;
			CREATE FUNCTION nemesis.handle(m jetbox.message) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
			RETURN nemesis.honest(m); EXCEPTION WHEN raise_exception THEN RAISE EXCEPTION '%', m.payload; END $$`,
	},
}

// sabotage plants the bug of a positive control.
func (l *lab) sabotage(ctx context.Context, name string) error {
	c := controls[name]
	password, _ := parsed(l.postgres.first).User.Password()
	if _, err := l.db.Exec(ctx, strings.ReplaceAll(c.sql, "PASSWORD", password)); err != nil {
		return fmt.Errorf("plant %s: %w", name, err)
	}
	if c.wire == nil {
		return nil
	}
	return c.wire(l)
}

// ackAll acks every message on its way to a worker.
func ackAll(l *lab) error {
	_, err := l.nc.Subscribe("_INBOX_worker.>", func(m *nats.Msg) {
		if strings.HasPrefix(m.Reply, "$JS.ACK.") {
			_ = m.Respond([]byte("+ACK"))
		}
	})
	return err
}
