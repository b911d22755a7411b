-- +goose Up
-- +goose StatementBegin
-- headers_are_strings reports whether h is a JSON object whose names are HTTP
-- tokens and whose values are strings without control characters.
CREATE FUNCTION jetbox.headers_are_strings(h json) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
	SELECT CASE WHEN json_typeof(h) <> 'object' THEN false ELSE (
		SELECT coalesce(bool_and(
			json_typeof(value) = 'string'
			AND key ~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$'
			AND value #>> '{}' !~ E'[\x01-\x08\x0a-\x1f\x7f]'), true)
		FROM json_each(h)) END
$$;

-- escapes_are_text reports whether the escapes in h are characters, as json alone
-- does not ask: to read a \u0000 or half a surrogate pair is an error.
CREATE FUNCTION jetbox.escapes_are_text(h json) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
	PERFORM h::jsonb;
	RETURN true;
EXCEPTION WHEN data_exception THEN
	RETURN false;
END $$;

-- headers_are_unreserved reports whether h leaves alone the names that the
-- broker or jetbox acts on: a Nats-Rollup header would empty the stream, and
-- Content-Type has a column of its own.
CREATE FUNCTION jetbox.headers_are_unreserved(h json) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
	SELECT CASE WHEN json_typeof(h) <> 'object' THEN true ELSE
		NOT EXISTS (SELECT FROM json_object_keys(h) AS name
			WHERE lower(name COLLATE "C") ~ '^(nats-|jetbox-|(status|description|content-type)$)') END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION jetbox.headers_are_unreserved(json);
DROP FUNCTION jetbox.headers_are_strings(json);
DROP FUNCTION jetbox.escapes_are_text(json);
