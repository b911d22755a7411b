package migrations_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// The names of the outbox's constraints are the error messages of our users.
const (
	badSubject      = "subject_is_1_to_16_tokens_of_letters_digits_dash_underscore"
	longSubject     = "subject_is_at_most_200_bytes"
	badKey          = "key_is_1_to_200_bytes_without_control_or_outer_space"
	badHeaders      = "headers_is_an_object_of_strings"
	reservedHeaders = "headers_has_no_nats_jetbox_status_description_content_type_name"
	longHeaders     = "headers_is_at_most_8192_bytes"
	payloads        = "exactly_one_of_payload_and_payload_bytes"
	longPayload     = "payload_is_at_most_900000_bytes"
	longBytes       = "payload_bytes_is_at_most_900000_bytes"
	badContentType  = "content_type_is_1_to_100_printable_ascii_characters"
)

const checkViolation = "23514"

func TestOutbox_RefusesABadSubject(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for name, tt := range map[string]struct{ subject, constraint string }{
		"empty":                {``, badSubject},
		"JetStream's API":      {`$JS.API.STREAM.DELETE.X`, badSubject},
		"system account":       {`$SYS.REQ.SERVER.PING`, badSubject},
		"an inbox":             {`_INBOX.x`, badSubject},
		"dollar inside":        {`jobs.$x`, badSubject},
		"wildcard for many":    {`orders.>`, badSubject},
		"wildcard for one":     {`orders.*`, badSubject},
		"leading dot":          {`.orders`, badSubject},
		"trailing dot":         {`orders.`, badSubject},
		"double dot":           {`orders..x`, badSubject},
		"newline at the end":   {"orders\n", badSubject},
		"a NATS command":       {"orders\r\nPUB x 0", badSubject},
		"space":                {`or ders`, badSubject},
		"tab":                  {"or\tders", badSubject},
		"Cyrillic homoglyph":   {`оrders`, badSubject},
		"emoji":                {`orders.🙂`, badSubject},
		"right-to-left mark":   {"orders\u200f", badSubject},
		"17 tokens":            {strings.Repeat("a.", 16) + "a", badSubject},
		"201 bytes":            {strings.Repeat("a", 201), longSubject},
		"kills the connection": {strings.Repeat("a", 5000), longSubject},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuses(t, db, checkViolation, tt.constraint, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, tt.subject)
			refuses(t, db, checkViolation, tt.constraint, `SELECT jetbox.schedule($1, '1', run_at => now())`, tt.subject)
		})
	}
}

// What a backslash means in a string is a setting of the session, also for the
// bodies of functions.
func TestOutbox_HasTheSameRulesWhateverBackslashesMean(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	rollback(t, db, func(tx pgx.Tx) {
		must(t, tx, `SET LOCAL standard_conforming_strings = off`)
		must(t, tx, `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.email.transactional.receipt.send.again', '1')`)
		must(t, tx, `INSERT INTO jetbox.outbox (subject, payload, headers) VALUES ('jobs.a', '1', '{"a": "x ü"}')`)
		for rule, values := range map[string]string{
			badSubject: `'jobs.x' || chr(10) || 'y', '1', NULL, NULL`,
			badKey:     `'jobs.x', '1', 'a' || chr(1) || 'b', NULL`,
			badHeaders: `'jobs.x', '1', NULL, json_build_object('a', 'x' || chr(13))`,
		} {
			must(t, tx, `SAVEPOINT s`)
			_, err := tx.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload, key, headers) VALUES (`+values+`)`)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.ConstraintName != rule {
				t.Errorf("%s = %v, want %s", values, err, rule)
			}
			must(t, tx, `ROLLBACK TO SAVEPOINT s`)
		}
	})
}

func TestOutbox_RefusesABadRow(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for name, tt := range map[string]struct{ code, constraint, columns, values string }{
		"no subject":                  {"23502", "", `payload`, `'1'`},
		"no payload":                  {checkViolation, payloads, `key`, `'k'`},
		"both payloads":               {checkViolation, payloads, `payload, payload_bytes`, `'1', 'x'`},
		"broken JSON":                 {"22P02", "", `payload`, `'{bad'`},
		"empty JSON":                  {"22P02", "", `payload`, `''`},
		"zero byte":                   {"22021", "", `payload`, `E'"\x00"'`},
		"invalid UTF-8":               {"22021", "", `payload`, `E'"\xff"'`},
		"deep JSON":                   {"54001", "", `payload`, `repeat('[', 200000)::json`},
		"900,001 bytes of JSON":       {checkViolation, longPayload, `payload`, `to_json(repeat('x', 899999))`},
		"900,001 bytes":               {checkViolation, longBytes, `payload_bytes`, `convert_to(repeat('x', 900001), 'UTF8')`},
		"empty key":                   {checkViolation, badKey, `payload, key`, `'1', ''`},
		"key of 201 bytes":            {checkViolation, badKey, `payload, key`, `'1', repeat('k', 201)`},
		"key in spaces":               {checkViolation, badKey, `payload, key`, `'1', ' k'`},
		"key with a line end":         {checkViolation, badKey, `payload, key`, `'1', E'k\r\nNats-Rollup: all'`},
		"headers array":               {checkViolation, badHeaders, `payload, headers`, `'1', '[]'`},
		"headers scalar":              {checkViolation, badHeaders, `payload, headers`, `'1', '"x"'`},
		"headers null":                {checkViolation, badHeaders, `payload, headers`, `'1', 'null'`},
		"header number":               {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": 1}'`},
		"header null":                 {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": null}'`},
		"header list":                 {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": ["b"]}'`},
		"header without a name":       {checkViolation, badHeaders, `payload, headers`, `'1', '{"": "x"}'`},
		"header name with a space":    {checkViolation, badHeaders, `payload, headers`, `'1', '{"a b": "x"}'`},
		"header name with a colon":    {checkViolation, badHeaders, `payload, headers`, `'1', '{"a:b": "x"}'`},
		"header name with a line end": {checkViolation, badHeaders, `payload, headers`, `'1', '{"a\r\nb": "x"}'`},
		"header value with line end":  {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": "x\r\ny"}'`},
		"header value with zero":      {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": "\u0000"}'`},
		"half a surrogate pair":       {checkViolation, badHeaders, `payload, headers`, `'1', '{"a": "\ud800"}'`},
		"zero in a header's name":     {checkViolation, badHeaders, `payload, headers`, `'1', '{"\u0000": "x"}'`},
		"duplicate window's header":   {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"Nats-Msg-Id": "x"}'`},
		"stream-wiping header":        {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"nats-rollup": "all"}'`},
		"our header":                  {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"JETBOX-Key": "x"}'`},
		"status header":               {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"Status": "503"}'`},
		"content type as a header":    {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"content-type": "text/plain"}'`},
		"description header":          {checkViolation, reservedHeaders, `payload, headers`, `'1', '{"Description": "x"}'`},
		"8,193 bytes of headers":      {checkViolation, longHeaders, `payload, headers`, `'1', json_build_object('a', repeat('x', 8192))`},
		"empty content type":          {checkViolation, badContentType, `payload_bytes, content_type`, `'x', ''`},
		"content type with line end":  {checkViolation, badContentType, `payload_bytes, content_type`, `'x', E'text/plain\r\nStatus: 503'`},
		"content type of 101":         {checkViolation, badContentType, `payload_bytes, content_type`, `'x', repeat('x', 101)`},
		"message ID not a UUID":       {"22P02", "", `payload, message_id`, `'1', 'order-17'`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sql := `INSERT INTO jetbox.outbox (subject, ` + tt.columns + `) VALUES ('jobs.a', ` + tt.values + `)`
			if name == "no subject" {
				sql = `INSERT INTO jetbox.outbox (` + tt.columns + `) VALUES (` + tt.values + `)`
			}
			refuses(t, db, tt.code, tt.constraint, sql)
		})
	}
}

func TestOutbox_RefusesWhatTheStatementAsks(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	const insert = `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`
	for code, sql := range map[string]string{
		"25006": `DO 'BEGIN SET LOCAL transaction_read_only = on; ` + strings.ReplaceAll(insert, "'", "''") + `; END'`,
		"42P10": insert + ` ON CONFLICT (message_id) DO NOTHING`, // no index says that an ID is new
	} {
		refuses(t, db, code, "", sql)
	}
}

func TestOutbox_AcceptsTheLimits(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for name, sql := range map[string]string{
		"subject and payload": `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.email', '{"to": "ada@example.com"}')`,
		"explicit NULLs": `INSERT INTO jetbox.outbox (subject, payload, payload_bytes, content_type, key, headers, message_id)
			VALUES ('jobs.a', '1', NULL, NULL, NULL, NULL, NULL)`,
		"explicit NULL payload": `INSERT INTO jetbox.outbox (subject, payload, payload_bytes) VALUES ('jobs.a', NULL, '')`,
		"zero byte by escape":   `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '"\u0000"')`,
		"half a surrogate pair": `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '"\ud800"')`,
		"number beyond numeric": `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1e400000')`,
		"numbers long in jsonb": `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', ('[' || repeat('1e131071,', 199) || '1]')::json)`,
		"a name twice":          `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '{"a": 1, "a": 2}')`,
		"a message ID twice":    `INSERT INTO jetbox.outbox (subject, payload, message_id) SELECT 'jobs.a', '1', '01890a5d-ac96-774b-bcce-b302099a8057' FROM generate_series(1, 2)`,
		"ON CONFLICT":           `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1') ON CONFLICT DO NOTHING`,
		"JSON null":             `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', 'null')`,
		"16 tokens":             `INSERT INTO jetbox.outbox (subject, payload) VALUES (repeat('a.', 15) || 'a', '1')`,
		"200 bytes of subject":  `INSERT INTO jetbox.outbox (subject, payload) VALUES (repeat('a', 200), '1')`,
		"200 bytes of key":      `INSERT INTO jetbox.outbox (subject, payload, key) VALUES ('jobs.a', '1', repeat('é', 100))`,
		"900,000 bytes of JSON": `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', to_json(repeat('x', 899998)))`,
		"900,000 bytes":         `INSERT INTO jetbox.outbox (subject, payload_bytes) VALUES ('jobs.a', convert_to(repeat('x', 900000), 'UTF8'))`,
		"headers":               `INSERT INTO jetbox.outbox (subject, payload, headers) VALUES ('jobs.a', '1', '{"traceparent": "00-1-2-01", "X-Tab": "a\tb", "empty": ""}')`,
		"no headers":            `INSERT INTO jetbox.outbox (subject, payload, headers) VALUES ('jobs.a', '1', '{}')`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := db.Exec(t.Context(), sql); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOutbox_KeepsJSONToTheByte(t *testing.T) {
	t.Parallel()
	const payload = `{"b": 1.0,  "a": 12345678901234567890, "a": "\u0000"}`
	var got string
	err := testenv.Database(t).QueryRow(t.Context(),
		`INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', $1::text::json) RETURNING payload::text`, payload).Scan(&got)
	if err != nil || got != payload {
		t.Errorf("payload = %s, %v, want %s", got, err, payload)
	}
}

func TestOutbox_GivesEveryMessageATimeOrderedID(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	const checkSQL = `
SELECT count(*), count(DISTINCT message_id),
	bool_and(message_id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'),
	bool_and(abs(extract(epoch FROM created_at) * 1000
		- ('x' || left(replace(message_id::text, '-', ''), 12))::bit(48)::bigint) < 1000)
FROM jetbox.outbox`
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload, message_id)
		SELECT 'jobs.a', '1', CASE WHEN n % 2 = 0 THEN jetbox.uuidv7() END FROM generate_series(1, 200) n`); err != nil {
		t.Fatal(err)
	}
	var n, distinct int
	var shape, timely bool
	if err := db.QueryRow(t.Context(), checkSQL).Scan(&n, &distinct, &shape, &timely); err != nil {
		t.Fatal(err)
	}
	if n != 200 || distinct != 200 || !shape || !timely {
		t.Errorf("rows, distinct ids, version 7, close to created_at = %d, %d, %t, %t, want 200, 200, true, true", n, distinct, shape, timely)
	}
}

func TestOutbox_IsARingOfEight(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	for _, tt := range []struct {
		id   int64
		want string
	}{
		{1<<24 - 1, "jetbox.outbox_0"},
		{1 << 24, "jetbox.outbox_1"},
		{1<<27 - 1, "jetbox.outbox_7"},
		{1 << 27, "jetbox.outbox_0"},
		{1<<63 - 1, "jetbox.outbox_7"},
	} {
		var got string
		err := db.QueryRow(t.Context(), `INSERT INTO jetbox.outbox (id, subject, payload) VALUES ($1, 'jobs.a', '1')
			RETURNING tableoid::regclass::text`, tt.id).Scan(&got)
		if err != nil || got != tt.want {
			t.Errorf("id %d is in %s, %v, want %s", tt.id, got, err, tt.want)
		}
	}
}

func refuses(t *testing.T, db *pgxpool.Pool, code, constraint, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql, args...)
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		t.Fatalf("%.80s = %v, want SQLSTATE %s", sql, err, code)
	}
	if e.Code != code || e.ConstraintName != constraint {
		t.Errorf("%.80s = %s %q (%s), want %s %q", sql, e.Code, e.ConstraintName, e.Message, code, constraint)
	}
}
