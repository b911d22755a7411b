-- +goose Up
-- +goose StatementBegin
-- Roles belong to the cluster: another database may have made this one already.
DO $$
BEGIN
	IF to_regrole('jetbox_producer') IS NULL THEN -- CREATE ROLE asks for the right to before it looks
		CREATE ROLE jetbox_producer NOLOGIN;
	END IF;
EXCEPTION
	WHEN duplicate_object OR unique_violation THEN
		NULL;
	WHEN insufficient_privilege THEN
		RAISE EXCEPTION 'role jetbox_producer does not exist and % may not create it', current_user
			USING HINT = 'Have an administrator run CREATE ROLE jetbox_producer NOLOGIN; then migrate again.';
END $$;
-- +goose StatementEnd
GRANT USAGE ON SCHEMA jetbox TO jetbox_producer;
GRANT USAGE ON SEQUENCE jetbox.outbox_id_seq TO jetbox_producer;
GRANT INSERT (message_id, subject, key, headers, payload, payload_bytes, content_type),
	SELECT (id, message_id) ON jetbox.outbox TO jetbox_producer;
GRANT INSERT (message_id, subject, key, headers, payload, payload_bytes, content_type, run_at),
	SELECT (id, message_id, run_at), DELETE ON jetbox.scheduled TO jetbox_producer;
GRANT INSERT, SELECT (id) ON jetbox.outboxevent TO jetbox_producer;

-- +goose Down
REVOKE ALL ON jetbox.outboxevent, jetbox.scheduled, jetbox.outbox FROM jetbox_producer;
REVOKE ALL ON SEQUENCE jetbox.outbox_id_seq FROM jetbox_producer;
REVOKE ALL ON SCHEMA jetbox FROM jetbox_producer;
-- +goose StatementBegin
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole('jetbox_producer')) THEN
		DROP ROLE jetbox_producer;
	END IF; -- its members would have to be made so again
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
	NULL; -- another database still uses it, or it is not ours to drop
END $$;
-- +goose StatementEnd
