-- +goose Up
-- +goose StatementBegin
-- A role for each daemon and for people, beside jetbox_producer: GRANT one of them
-- to a role that logs in. Roles belong to the cluster: another database may make
-- one at this moment, or drop it; once this transaction has granted it something
-- it stays.
DO $$
DECLARE
	role text;
BEGIN
	FOREACH role IN ARRAY '{jetbox_relay,jetbox_worker,jetbox_api,jetbox_operator}'::text[] LOOP
		LOOP
			BEGIN
				IF to_regrole(role) IS NULL THEN -- CREATE ROLE asks for the right to before it looks
					EXECUTE format('CREATE ROLE %I NOLOGIN', role);
				END IF;
			EXCEPTION
				WHEN duplicate_object OR unique_violation THEN
					NULL;
				WHEN insufficient_privilege THEN
					RAISE EXCEPTION 'role % does not exist and % may not create it', role, current_user
						USING HINT = format('Have an administrator run CREATE ROLE %s NOLOGIN; then migrate again.', role);
			END;
			BEGIN
				EXECUTE format('GRANT USAGE ON SCHEMA jetbox TO %I', role);
				EXIT;
			EXCEPTION WHEN undefined_object THEN
				NULL; -- dropped in between
			END;
		END LOOP;
	END LOOP;
END $$;
-- +goose StatementEnd

-- FOR UPDATE asks for the right to update a column. Where that is all it is for,
-- the column is one that says nothing or, being an identity, takes no value.
GRANT SELECT ON jetbox.migration TO jetbox_relay, jetbox_worker, jetbox_api, jetbox_operator;

-- Whom PUBLIC's default right to functions has been taken from.
GRANT EXECUTE ON FUNCTION jetbox.uuidv7(), jetbox.uuidv7_at(timestamptz), jetbox.announce(), jetbox.ring_doorbell(),
	jetbox.escapes_are_text(json), jetbox.headers_are_strings(json), jetbox.headers_are_unreserved(json)
	TO jetbox_producer, jetbox_relay, jetbox_worker, jetbox_api, jetbox_operator;
GRANT EXECUTE ON FUNCTION jetbox.enqueue(text, json, text, json, uuid),
	jetbox.schedule(text, json, text, json, uuid, timestamptz) TO jetbox_producer, jetbox_worker, jetbox_api, jetbox_operator;
GRANT EXECUTE ON FUNCTION jetbox.known(text, uuid[], date[]) TO jetbox_worker;
GRANT EXECUTE ON FUNCTION jetbox.inbox_weeks() TO jetbox_relay, jetbox_worker, jetbox_api, jetbox_operator;
GRANT EXECUTE ON FUNCTION jetbox.message_status(uuid), jetbox.ended(uuid[]) TO jetbox_api, jetbox_operator;
GRANT EXECUTE ON FUNCTION jetbox.scheduled_is_due() TO jetbox_relay;
GRANT USAGE ON TYPE jetbox.message TO jetbox_worker;

-- The relay reads payloads, writes the ledger and empties the ring; it can change
-- no message.
GRANT SELECT, INSERT (message_id, subject, key, headers, payload, payload_bytes, content_type) ON jetbox.outbox TO jetbox_relay;
GRANT SELECT, TRUNCATE ON jetbox.outbox_0, jetbox.outbox_1, jetbox.outbox_2, jetbox.outbox_3,
	jetbox.outbox_4, jetbox.outbox_5, jetbox.outbox_6, jetbox.outbox_7 TO jetbox_relay;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE jetbox.outbox_id_seq TO jetbox_relay;
GRANT EXECUTE ON FUNCTION jetbox.summarize_outbox(int, bigint), jetbox.take_back(uuid[]) TO jetbox_relay;
GRANT SELECT, INSERT, DELETE ON jetbox.relay_batch TO jetbox_relay;
GRANT SELECT, UPDATE (epoch, owner, renewed_at, expires_at, cluster) ON jetbox.relay_lease TO jetbox_relay;
GRANT SELECT, DELETE, UPDATE (id) ON jetbox.scheduled TO jetbox_relay;
GRANT SELECT, INSERT, UPDATE ON jetbox.dead_letter TO jetbox_relay;
GRANT SELECT (message_id, consumer, day) ON jetbox.inbox TO jetbox_relay;

-- The worker records what it has processed. A handler's own tables, and
-- jetbox_producer for one that enqueues, are granted beside this role.
GRANT SELECT (message_id, consumer, day, processed_at), DELETE,
	INSERT (message_id, consumer, day, subject, result) ON jetbox.inbox TO jetbox_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON jetbox.failed_attempt TO jetbox_worker;
GRANT SELECT, INSERT, UPDATE ON jetbox.dead_letter TO jetbox_worker;
GRANT EXECUTE ON FUNCTION jetbox.maintain_inbox(interval, interval) TO jetbox_worker;

-- What people and the jobs API do alike: enqueue, see what became of a message,
-- and settle dead letters. Only the API, which prunes it, can take from the audit.
GRANT INSERT (message_id, subject, key, headers, payload, payload_bytes, content_type),
	SELECT (id, xid, created_at, message_id, subject, key) ON jetbox.outbox TO jetbox_api, jetbox_operator;
GRANT USAGE, SELECT ON SEQUENCE jetbox.outbox_id_seq TO jetbox_api, jetbox_operator;
GRANT INSERT (message_id, subject, key, headers, payload, payload_bytes, content_type, run_at), DELETE,
	SELECT (id, created_at, message_id, subject, key, run_at) ON jetbox.scheduled TO jetbox_api, jetbox_operator;
GRANT SELECT ON jetbox.outbox_status, jetbox.relay_batch, jetbox.relay_lease, jetbox.inbox, jetbox.failed_attempt,
	jetbox.operator_action, jetbox.api_token TO jetbox_api, jetbox_operator;
GRANT SELECT, DELETE, UPDATE (stream_seq) ON jetbox.dead_letter TO jetbox_api, jetbox_operator;
GRANT INSERT (message_id, consumer, day, subject) ON jetbox.inbox TO jetbox_api, jetbox_operator;
GRANT INSERT (actor, action, message_id, consumer, details) ON jetbox.operator_action TO jetbox_api, jetbox_operator;

-- The API forgets old keys and old lines of the audit; people replay, and make tokens.
GRANT SELECT, INSERT, DELETE, UPDATE (created_at) ON jetbox.idempotency_key TO jetbox_api;
GRANT DELETE ON jetbox.operator_action TO jetbox_api;
GRANT INSERT ON jetbox.relay_batch TO jetbox_operator;
GRANT INSERT (name, hash, scopes, expires_at), UPDATE (revoked_at) ON jetbox.api_token TO jetbox_operator;

-- +goose Down
-- +goose StatementBegin
DO $$
DECLARE
	role text;
BEGIN
	FOREACH role IN ARRAY '{jetbox_relay,jetbox_worker,jetbox_api,jetbox_operator}'::text[] LOOP
		EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA jetbox FROM %I', role);
		EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA jetbox FROM %I', role);
		EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA jetbox FROM %I', role);
		EXECUTE format('REVOKE ALL ON SCHEMA jetbox FROM %I', role);
		BEGIN
			IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole(role)) THEN
				EXECUTE format('DROP ROLE %I', role);
			END IF; -- its members would have to be made so again
		EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
			NULL; -- another database still uses it, or it is not ours to drop
		END;
	END LOOP;
END $$;
-- +goose StatementEnd
