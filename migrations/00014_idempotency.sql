-- +goose Up
-- What POST /jobs has answered: a repeated request with the same key gets the
-- same message. Written in the message's own transaction, so neither exists
-- without the other. The jobs API removes keys a day after their first use.
CREATE TABLE jetbox.idempotency_key (
	-- The token that used the key: a key says nothing to anyone else.
	owner      text        NOT NULL,
	key        text        NOT NULL CHECK (octet_length(key) BETWEEN 1 AND 200),
	body_hash  bytea       NOT NULL,
	message_id uuid        NOT NULL,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_key_created_at ON jetbox.idempotency_key (created_at);

-- +goose Down
DROP TABLE jetbox.idempotency_key;
