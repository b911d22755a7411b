package outbox_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/jetboxhq/jetbox/outbox"
)

// poison is what would reach more than its own message, if a layer let it through:
// another subject, the broker's API, another client's replies, the protocol
// itself, or a header that the broker acts on. PREFIX is the stream's.
var poison = map[string]outbox.Message{
	"wildcard":             {Subject: "PREFIX.>"},
	"token wildcard":       {Subject: "PREFIX.*"},
	"space":                {Subject: "PREFIX.a b"},
	"tab":                  {Subject: "PREFIX.a\tb"},
	"command after a line": {Subject: "PREFIX.a\r\nPUB PREFIX.b 1\r\nx"},
	"line feed":            {Subject: "PREFIX.a\n"},
	"the broker's API":     {Subject: "$JS.API.STREAM.DELETE.PREFIX"},
	"the system account":   {Subject: "$SYS.REQ.SERVER.PING"},
	"another's replies":    {Subject: "_INBOX.a.b"},
	"relay's replies":      {Subject: "_INBOX_relay.a"},
	"empty token":          {Subject: "PREFIX..a"},
	"no token":             {Subject: "."},
	"not ASCII":            {Subject: "PREFIX.\u043e"},
	"too long":             {Subject: "PREFIX." + strings.Repeat("a", 5000)},
	"too many tokens":      {Subject: "PREFIX" + strings.Repeat(".a", 16)},
	"rollup":               {Headers: map[string]string{"Nats-Rollup": "all"}},
	"rollup in small":      {Headers: map[string]string{"nats-rollup": "all"}},
	"forged identity":      {Headers: map[string]string{"Jetbox-Message-Id": "x"}},
	"forged status":        {Headers: map[string]string{"Status": "503"}},
	"header after a line":  {Headers: map[string]string{"a": "b\r\nNats-Rollup: all"}},
	"header name":          {Headers: map[string]string{"a: b\r\nNats-Rollup": "all"}},
	"empty header name":    {Headers: map[string]string{"": "x"}},
	"key after a line":     {Key: "k\r\nNats-Rollup: all"},
}

func (l *lab) poisoned(m outbox.Message) outbox.Message {
	if m.Subject == "" {
		m.Subject = "PREFIX.x"
	}
	m.Subject = strings.ReplaceAll(m.Subject, "PREFIX", l.prefix)
	m.Payload = json.RawMessage(`"poison"`)
	return m
}

func (l *lab) enqueue(m outbox.Message) error {
	return pgx.BeginFunc(l.t.Context(), l.db, func(tx pgx.Tx) error { return outbox.Enqueue(l.t.Context(), tx, m) })
}

func TestInjection_IsRefusedByTheTable(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, m := range poison {
		if e, ok := errors.AsType[*pgconn.PgError](l.enqueue(l.poisoned(m))); !ok || e.Code != "23514" {
			t.Errorf("%s: Enqueue = %v, want 23514", name, e)
		}
	}
}

func TestInjection_IsSetAsideByTheRelayWhereTheTableIsCircumvented(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.insert(0, 1)
	l.exec(`ALTER TABLE jetbox.outbox DISABLE TRIGGER check_message`)
	for name, m := range poison {
		if err := l.enqueue(l.poisoned(m)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	l.exec(`ALTER TABLE jetbox.outbox ENABLE TRIGGER check_message`)
	l.insert(1, 1)
	l.relay()
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 2); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got := ask[int](l, `SELECT count(*) FROM jetbox.dead_letter WHERE consumer = '$relay'`); got != len(poison) {
		t.Errorf("%d dead letters, want %d", got, len(poison))
	}
}

// The table's rules run with the application's search_path: one that has operators
// of its own can slip past them, and gets no further than the relay.
func TestInjection_ByAnOperatorOfOnesOwnEndsAtTheRelay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`
		CREATE SCHEMA mine;
		CREATE FUNCTION mine.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
		CREATE OPERATOR mine.!~ (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.never);
		GRANT USAGE ON SCHEMA mine TO jetbox_producer`)
	err := pgx.BeginFunc(t.Context(), l.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL ROLE jetbox_producer; SET LOCAL search_path = mine, pg_catalog;
			INSERT INTO jetbox.outbox (subject, payload) VALUES ('$JS.API.STREAM.DELETE.`+l.stream.Name+`', '1')`)
		return err
	})
	if err != nil {
		t.Fatalf("the table refuses it: %v", err)
	}
	l.insert(0, 1)
	l.relay()
	l.waitCaughtUp()
	if got, want := l.bodies(), numbers(0, 1); !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	if got := ask[int](l, `SELECT count(*) FROM jetbox.dead_letter WHERE consumer = '$relay'`); got != 1 {
		t.Errorf("%d dead letters, want 1", got)
	}
}
