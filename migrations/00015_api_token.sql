-- +goose Up
-- Bearer tokens of the jobs API. Only a SHA-256 is kept: a token is 256 random
-- bits, which no one can guess from its hash.
CREATE TABLE jetbox.api_token (
	name       text        PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
	hash       bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
	scopes     text[]      NOT NULL CONSTRAINT scopes_are_produce_read_operate
		CHECK (cardinality(scopes) > 0 AND scopes <@ '{produce,read,operate}'),
	created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	expires_at timestamptz,
	revoked_at timestamptz
);

-- +goose Down
DROP TABLE jetbox.api_token;
