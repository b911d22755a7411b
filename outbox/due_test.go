package outbox_test

import (
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// As a restore without triggers leaves them.
func TestRelay_MovesWhatIsDueBehindARowThatBreaksARule(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`ALTER TABLE jetbox.scheduled DISABLE TRIGGER check_message`)
	l.exec(`INSERT INTO jetbox.scheduled (message_id, subject, payload, key, headers, run_at)
		SELECT jetbox.uuidv7_at(now()), CASE i WHEN 2 THEN 'no space' ELSE $1 END, '{"n": 1}', 'k', '{"a": "b"}', now() + i * interval '1 ms'
		FROM generate_series(1, 3) i`, l.prefix+".x")
	l.relay()
	testenv.Eventually(t, "both good ones to be published", func() bool {
		return ask[int](l, `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'sent'`) == 2
	})
	got := ask[string](l, `SELECT concat_ws(' ', consumer, subject, payload, key, headers->'a', reason) FROM jetbox.dead_letter`)
	if want := `$relay no space {"n": 1} k "b" the outbox refuses it: subject_is_1_to_16_tokens_of_letters_digits_dash_underscore`; got != want {
		t.Errorf("dead letter = %s, want %s", got, want)
	}
	if n := ask[int](l, `SELECT count(*) FROM jetbox.scheduled`); n != 0 {
		t.Errorf("%d rows are scheduled still", n)
	}
}

// As a producer can make it who chooses what a session's names mean.
func TestRelay_MovesWhatIsDueBehindARowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`ALTER TABLE jetbox.outbox DISABLE TRIGGER check_message`)
	l.exec(`ALTER TABLE jetbox.scheduled DISABLE TRIGGER check_message`)
	l.exec(`CREATE FUNCTION public.reads() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM NEW.headers::jsonb; RETURN NEW; END'`)
	l.exec(`CREATE TRIGGER reads BEFORE INSERT ON jetbox.outbox FOR EACH ROW EXECUTE FUNCTION public.reads()`)
	l.exec(`INSERT INTO jetbox.scheduled (message_id, subject, payload, headers, run_at)
		SELECT jetbox.uuidv7_at(now()), $1, '1', CASE i WHEN 1 THEN '{"a": "\u0000"}' END::json, now() + i * interval '1 ms'
		FROM generate_series(1, 2) i`, l.prefix+".x")
	l.relay()
	testenv.Eventually(t, "the good one to be published", func() bool {
		return ask[int](l, `SELECT count(*) FROM jetbox.outbox_status WHERE state = 'sent'`) == 1
	})
	if got, want := ask[string](l, `SELECT string_agg(reason, ' ') FROM jetbox.dead_letter`), "the outbox refuses it: SQLSTATE 22P05"; got != want {
		t.Errorf("dead letter = %s, want %s", got, want)
	}
}
