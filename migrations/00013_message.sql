-- +goose Up
-- What a SQL handler receives: CREATE FUNCTION app.handle(m jetbox.message) RETURNS json.
CREATE TYPE jetbox.message AS (
	message_id    uuid,
	subject       text,
	key           text,
	headers       json,
	payload       json,
	payload_bytes bytea,
	content_type  text,
	attempt       int
);

-- +goose Down
DROP TYPE jetbox.message;
