-- +goose Up
-- +goose StatementBegin
-- enqueue is sugar for psql and triggers: one INSERT, and the message's ID back.
CREATE FUNCTION jetbox.enqueue(
	subject text, payload json, key text DEFAULT NULL, headers json DEFAULT NULL, message_id uuid DEFAULT NULL
) RETURNS uuid LANGUAGE sql AS $$
	INSERT INTO jetbox.outbox (subject, payload, key, headers, message_id)
	VALUES (enqueue.subject, enqueue.payload, enqueue.key, enqueue.headers, enqueue.message_id)
	RETURNING message_id
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.enqueue(text, json, text, json, uuid);
