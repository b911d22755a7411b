package main

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestDead_DryRunCountsWhatWouldChange(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	for _, age := range []int{0, 0, 1} {
		execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, attempts, reason)
			VALUES (jetbox.uuidv7_at(now() - make_interval(years => $1)), 'w', 'jobs.a', '1', 5, 'no')`, age)
	}
	for verb, want := range map[string]struct{ stdout, stderr string }{
		"redrive": {"would redrive 2\n", "1 stay dead: their IDs are older than the inbox remembers\n"},
		"discard": {"would discard 3\n", ""},
	} {
		code, stdout, stderr := invoke(t, i.with(nil), "dead", verb, "--all", "--dry-run")
		if code != exitOK || stdout != want.stdout || stderr != want.stderr {
			t.Errorf("dead %s --dry-run = %d %q %q, want %+v", verb, code, stdout, stderr, want)
		}
	}
	if code, _, stderr := invoke(t, i.with(nil), "dead", "redrive", uuid.NewString()); code != exitFailure || !strings.Contains(stderr, "is no dead letter\n") {
		t.Errorf("dead redrive of no letter = %d %q, want %d", code, stderr, exitFailure)
	}
	if code, stdout, stderr := invoke(t, i.with(nil), "dead", "redrive", "--all"); code != exitOK || stdout != "redrive: 2\n" ||
		!strings.HasPrefix(stderr, "1 stay dead") {
		t.Errorf("dead redrive = %d %q %q, want two, and that one stays", code, stdout, stderr)
	}
	if got := succeed(t, i.with(nil), "dead", "discard", "--all", "--yes"); got != "discard: 1\n" {
		t.Errorf("dead discard = %q, want one", got)
	}
}

// Whoever may publish chooses the subject of a letter.
func TestDead_ShowsNoSubjectThatMovesTheCursor(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	id := uuid.NewString()
	execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, attempts, reason)
		VALUES ($1, E'w\x1b[1m', E'jobs.\x1b[2J', '1', 5, 'no')`, id)
	for _, args := range [][]string{{"list"}, {"list", "--each"}, {"show", id}} {
		if got := succeed(t, i.with(nil), append([]string{"dead"}, args...)...); strings.Contains(got, "\x1b") || !strings.Contains(got, "jobs. [2J") {
			t.Errorf("dead %s = %q", args, got)
		}
	}
}

func TestSend_KeepsAHeaderWhole(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	succeed(t, i.with(nil), "send", "--header", "accept=text/html;q=1", "--header", "lang=de", "jobs.a", "1")
	if got := one[string](t, i.db, `SELECT headers::jsonb::text FROM jetbox.outbox`); got != `{"lang": "de", "accept": "text/html;q=1"}` {
		t.Errorf("headers = %s", got)
	}
}

func TestDead_NamesEachMessageThatIsNoLetter(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	letter, one, two := uuid.NewString(), uuid.NewString(), uuid.NewString()
	for _, args := range [][]string{{"redrive", "--dry-run"}, {"redrive"}, {"discard", "--yes"}} {
		execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, attempts, reason)
			VALUES ($1, 'w', 'jobs.a', '1', 5, 'no') ON CONFLICT DO NOTHING`, letter)
		code, stdout, stderr := invoke(t, i.with(nil), append([]string{"dead", args[0], one, letter, two}, args[1:]...)...)
		if code != exitFailure || !strings.HasSuffix(stdout, " 1\n") || strings.Contains(stderr, letter) ||
			!strings.Contains(stderr, one+" is no dead letter\n") || !strings.Contains(stderr, two+" is no dead letter\n") {
			t.Errorf("dead %s = %d %q %q, want one letter changed and both strangers named", args, code, stdout, stderr)
		}
	}
	if code, _, stderr := invoke(t, i.with(nil), "dead", "redrive", letter, "--subject", "jobs.b"); code != exitFailure ||
		!strings.Contains(stderr, letter+" is no dead letter that --consumer") {
		t.Errorf("dead redrive = %d %q, want that the filter leaves it out", code, stderr)
	}
}
