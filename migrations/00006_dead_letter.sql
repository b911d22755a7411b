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

-- +goose Down
DROP TABLE jetbox.dead_letter;
