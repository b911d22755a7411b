package deadletter_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/deadletter"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func insert(t *testing.T, db *pgxpool.Pool, letters ...deadletter.Letter) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		return deadletter.Insert(t.Context(), tx, letters...)
	})
	if err != nil {
		t.Fatalf("Insert: %v", err)
	}
}

func text(t *testing.T, db *pgxpool.Pool, sql string, args ...any) string {
	t.Helper()
	var s *string
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return "NULL"
	}
	return *s
}

func TestInsert_KeepsEverythingALetterSays(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	id := uuid.New()
	insert(t, db, deadletter.Letter{
		MessageID: id, Consumer: "w", Subject: "jobs.x", Key: "k",
		Headers: map[string][]string{"a": {"1", "2"}}, Payload: []byte(`{"n": 1}`), Reason: "why", Attempts: 2,
		Errors: []deadletter.Attempt{{Attempt: 1, Error: "first"}, {Attempt: 2, Error: "second"}},
		Stream: "JOBS", StreamSeq: 7,
	}, deadletter.Letter{MessageID: uuid.New(), Consumer: deadletter.Relay, Subject: "jobs.y", OutboxID: 5})
	got := text(t, db, `SELECT concat_ws(' ', consumer, subject, key, headers, payload, payload_bytes, content_type, reason,
		attempts, errors->1->>'error', outbox_id, stream, stream_seq) FROM jetbox.dead_letter WHERE message_id = $1`, id)
	if want := `w jobs.x k {"a":"1, 2"} {"n": 1} why 2 second JOBS 7`; got != want {
		t.Errorf("letter = %s, want %s", got, want)
	}
	got = text(t, db, `SELECT concat_ws(' ', consumer, key, headers, errors, outbox_id, stream, stream_seq)
		FROM jetbox.dead_letter WHERE message_id <> $1`, id)
	if want := `$relay [] 5`; got != want {
		t.Errorf("relay's letter = %s, want %s", got, want)
	}
}

func TestInsert_ReplacesALetterThatExists(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	l := deadletter.Letter{MessageID: uuid.New(), Consumer: "w", Subject: "jobs.x", Reason: "old", OutboxID: 5}
	insert(t, db, l)
	newer, newest := l, l
	newer.Reason, newest.Reason, newest.OutboxID = "newer", "newest", 0
	insert(t, db, newer, newest)
	if got, want := text(t, db, `SELECT string_agg(reason || outbox_id, ',') FROM jetbox.dead_letter`), "newest5"; got != want {
		t.Errorf("letters = %s, want %s", got, want)
	}
}

func TestInsert_TakesWhateverTheBrokerDelivered(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	cases := map[string]struct {
		contentType, payload string
		column               string
	}{
		"JSON":                 {"", `{"b":1, "a":1e400}`, "payload"},
		"JSON by content type": {"application/json", `[]`, "payload"},
		"escaped NUL":          {"", `"\u0000"`, "payload"},
		"lone surrogate":       {"", `"\ud800"`, "payload"},
		"deep but within":      {"", strings.Repeat("[", 500) + strings.Repeat("]", 500), "payload"},
		"too deep":             {"", strings.Repeat("[", 9999) + strings.Repeat("]", 9999), "payload_bytes"},
		"brackets in a string": {"", `"` + strings.Repeat(`[\"`, 9999) + `"`, "payload"},
		"two values":           {"", `{} {}`, "payload_bytes"},
		"empty":                {"", ``, "payload_bytes"},
		"NUL":                  {"", "\x00", "payload_bytes"},
		"not UTF-8":            {"", "\"\xff\"", "payload_bytes"},
		"another content type": {"text/plain", `{}`, "payload_bytes"},
	}
	for name, c := range cases {
		id := uuid.New()
		insert(t, db, deadletter.Letter{
			MessageID: id, Consumer: "w\x00", Subject: "a\xff", Key: "\x00", ContentType: c.contentType,
			Headers: map[string][]string{"h\xff": {"\x00", `\u0000`}}, Reason: "\x00\xff", Payload: []byte(c.payload),
			Errors: []deadletter.Attempt{{Error: "a\x00b" + `\u0000`}},
		})
		stored := `convert_from(payload_bytes, 'SQL_ASCII')`
		if c.column == "payload" {
			stored = `payload::text`
		}
		if strings.Contains(c.payload, "\x00") || strings.Contains(c.payload, "\xff") {
			stored = `NULL`
		}
		got := text(t, db, `SELECT `+stored+` FROM jetbox.dead_letter WHERE message_id = $1 AND `+c.column+` IS NOT NULL`, id)
		if got != "NULL" && got != c.payload {
			t.Errorf("%s: stored %q, want %q", name, got, c.payload)
		}
	}
}

func TestInsert_LeavesNoLetterWhenItsTransactionDoes(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := deadletter.Insert(t.Context(), tx, deadletter.Letter{MessageID: uuid.New(), Consumer: "w"}); err != nil {
		t.Fatal(err)
	}
	if err := deadletter.Insert(t.Context(), tx); err != nil {
		t.Errorf("Insert of nothing: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := text(t, db, `SELECT count(*)::text FROM jetbox.dead_letter`); got != "0" {
		t.Errorf("%s letters after a rollback", got)
	}
}

// Whoever copies a reason from the list finds the letters that it stands for.
func TestFilter_FindsAReasonAsTheListShowsIt(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t)
	insert(t, db, deadletter.Letter{MessageID: uuid.New(), Consumer: "w", Reason: "order 17 of " + uuid.NewString() + ": no route"},
		deadletter.Letter{MessageID: uuid.New(), Consumer: "w", Reason: "order 18 of " + uuid.NewString() + ": no route"})
	groups, err := deadletter.Groups(t.Context(), db, deadletter.Filter{})
	if err != nil || len(groups) != 1 || groups[0].Reason != "order N of N: no route" {
		t.Fatalf("Groups = %+v, %v, want one", groups, err)
	}
	for reason, want := range map[string]int64{groups[0].Reason: 2, "order 17": 1, "": 2, "order M": 0} {
		if n, err := deadletter.CountMatching(t.Context(), db, deadletter.Filter{Reason: reason}); n != want || err != nil {
			t.Errorf("%q: %d letters, %v, want %d", reason, n, err, want)
		}
	}
}

func FuzzSplitPayload_FillsOneColumn(f *testing.F) {
	f.Add("", []byte(`{"a":[1,2]}`))
	f.Add("text/plain", []byte("\xff"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		payload, raw := deadletter.SplitPayload(contentType, body)
		switch {
		case (payload == nil) == (raw == nil):
			t.Errorf("payload %v and bytes %v", payload, raw)
		case payload != nil && *payload != string(body), raw != nil && string(raw) != string(body):
			t.Error("the body changed")
		}
	})
}
