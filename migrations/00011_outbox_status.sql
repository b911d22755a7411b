-- +goose Up
-- What became of each message that the outbox still holds: pending, sent or dead,
-- and when, after a replay once or again. sent_at looks through the ledger: ask for
-- a few messages, not for all.
CREATE VIEW jetbox.outbox_status AS
SELECT o.id, o.message_id, o.subject, o.key, o.created_at,
	CASE
		WHEN d.message_id IS NOT NULL THEN 'dead'
		WHEN pg_visible_in_snapshot(o.xid, coalesce(b.prev_snap, b.snap))
			OR (o.id <= b.pos_id AND pg_visible_in_snapshot(o.xid, b.snap)) THEN 'sent'
		ELSE 'pending'
	END AS state,
	(SELECT greatest(o.created_at, l.published_at) FROM jetbox.relay_batch l
		LEFT JOIN jetbox.relay_batch p ON p.seq = l.seq - 1
		WHERE l.last_id >= o.id
			AND (pg_visible_in_snapshot(o.xid, coalesce(l.prev_snap, l.snap))
				OR (o.id <= l.pos_id AND pg_visible_in_snapshot(o.xid, l.snap)))
			AND (pg_visible_in_snapshot(o.xid, coalesce(p.prev_snap, p.snap))
				OR (o.id <= p.pos_id AND pg_visible_in_snapshot(o.xid, p.snap))) IS NOT TRUE
		ORDER BY l.last_id LIMIT 1) AS sent_at,
	d.reason
FROM jetbox.outbox o
LEFT JOIN (SELECT * FROM jetbox.relay_batch ORDER BY seq DESC LIMIT 1) b ON true
LEFT JOIN jetbox.dead_letter d ON d.outbox_id = o.id AND d.consumer = '$relay';

-- +goose Down
DROP VIEW jetbox.outbox_status;
