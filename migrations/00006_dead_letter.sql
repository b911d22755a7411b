-- +goose Up
-- A message set aside for a person: by a worker whose handler gave up, or by
-- the relay (consumer '$relay') because no stream could ever take it.
CREATE TABLE jetbox.dead_letter (
	message_id    uuid        NOT NULL,
	consumer      text        NOT NULL,
	subject       text        NOT NULL,
	key           text,
	headers       json,
	payload       json,
	payload_bytes bytea,
	content_type  text,
	reason        text        NOT NULL,
	-- [{"attempt": 1, "at": "...", "error": "..."}], oldest first.
	errors        jsonb       NOT NULL DEFAULT '[]',
	attempts      int         NOT NULL DEFAULT 0,
	outbox_id     bigint,
	stream        text,
	stream_seq    bigint,
	died_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (message_id, consumer)
);
CREATE INDEX dead_letter_died_at ON jetbox.dead_letter (died_at);
CREATE INDEX dead_letter_outbox_id ON jetbox.dead_letter (outbox_id) WHERE outbox_id IS NOT NULL;

-- take_back removes what the relay set aside of ids, which it publishes after all:
-- a replay has found a stream that takes them. It may remove no other letters.
CREATE FUNCTION jetbox.take_back(ids uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = jetbox, pg_temp AS $$
	DELETE FROM jetbox.dead_letter WHERE consumer = '$relay' AND message_id = ANY (ids)
$$;
REVOKE EXECUTE ON FUNCTION jetbox.take_back(uuid[]) FROM PUBLIC;

-- +goose Down
DROP FUNCTION jetbox.take_back(uuid[]);
DROP TABLE jetbox.dead_letter;
