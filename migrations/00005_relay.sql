-- +goose Up
-- The ledger: one row for a published batch, or a few small ones, never updated. The newest row is the
-- relay's position, and its primary key is the compare-and-swap that fences a
-- relay which lost its lease.
CREATE TABLE jetbox.relay_batch (
	seq          bigint      PRIMARY KEY,
	epoch        bigint      NOT NULL,
	-- How often the relay was sent back so far. While replay is true, what follows
	-- this row was published before: the generation is then part of the broker's
	-- message ID, or the duplicate window would swallow it.
	generation   int         NOT NULL DEFAULT 0,
	replay       boolean     NOT NULL DEFAULT false,
	-- In the row that sends the relay back: the batch whose position it returns
	-- to. Later batches are published again, so nobody misses them for now.
	rewound_to   bigint,
	-- Everything visible in snap is published, unless a window is open: then
	-- what is visible in prev_snap is, and of the rest the rows up to pos_id.
	snap         pg_snapshot NOT NULL,
	prev_snap    pg_snapshot,
	pos_id       bigint,
	n            int         NOT NULL,
	first_id     bigint,
	last_id      bigint,
	-- {"JOBS": {"created": "2026-11-22T10:00:00Z", "last_seq": 42}}: the state of
	-- each stream this batch went to, to notice later what the broker has lost.
	streams      jsonb       NOT NULL DEFAULT '{}',
	-- When the first batch was.
	published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	CONSTRAINT a_window_has_both_a_start_and_a_position
		CHECK ((prev_snap IS NULL) = (pos_id IS NULL))
) WITH (fillfactor = 100);
-- For who asks about one message, or one child of the ring.
CREATE INDEX relay_batch_last_id ON jetbox.relay_batch (last_id);
CREATE INDEX relay_batch_rewound_to ON jetbox.relay_batch (seq, rewound_to) WHERE rewound_to IS NOT NULL;

-- The lease: which relay may publish, by this database's clock alone.
CREATE TABLE jetbox.relay_lease (
	only_one   boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
	epoch      bigint      NOT NULL,
	owner      text        NOT NULL,
	renewed_at timestamptz NOT NULL DEFAULT 'epoch',
	expires_at timestamptz NOT NULL,
	cluster    bigint -- whose transactions the ledger's snapshots are of
) WITH (fillfactor = 10);
INSERT INTO jetbox.relay_lease (epoch, owner, expires_at) VALUES (0, '', 'epoch');

-- +goose StatementBegin
-- summarize_outbox lets the BRIN of one child of the ring cover its pages from
-- block on, at most a quarter of a gigabyte of them, and returns where to go on:
-- further back where the child has become smaller. The four ranges at its end are
-- left out: Postgres adds pages before it fills them, and each INSERT into a range
-- that is covered may have to widen it. A vacuum of the child is not waited for.
-- Only the table's owner may do it, and the relay need not be that.
CREATE FUNCTION jetbox.summarize_outbox(child int, block bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = jetbox, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
	outbox CONSTANT regclass := pg_catalog.format('jetbox.outbox_%s', child);
	brin CONSTANT regclass := pg_catalog.format('jetbox.outbox_%s_brin', child);
	filled CONSTANT bigint := pg_catalog.pg_relation_size(outbox) / pg_catalog.current_setting('block_size')::bigint / 32 - 4;
BEGIN
	FOR range IN block / 32 .. least(filled, block / 32 + 1024) - 1 LOOP
		PERFORM pg_catalog.brin_summarize_range(brin, 32 * range);
		block := 32 * (range + 1);
	END LOOP;
	RETURN least(block, 32 * greatest(filled, 0));
END $$;
REVOKE EXECUTE ON FUNCTION jetbox.summarize_outbox(int, bigint) FROM PUBLIC;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.summarize_outbox(int, bigint);
DROP TABLE jetbox.relay_lease;
DROP TABLE jetbox.relay_batch;
