package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
	"github.com/jetboxhq/jetbox/outbox"
)

const brokenYAML = `
worker:
  max_attempts: 2
  retry_delay: 10ms
  handlers:
    - {subject: PREFIX.broken, sql: public.broken}
`

const brokenSQL = `
CREATE FUNCTION public.broken(m jetbox.message) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'no route to %', m.payload #>> '{}';
END $$`

const repairedSQL = `
CREATE OR REPLACE FUNCTION public.broken(m jetbox.message) RETURNS json LANGUAGE sql AS $$ SELECT '{"ok": true}'::json $$`

// succeed runs a command that must succeed and returns what it printed.
func succeed(t *testing.T, v vars, args ...string) string {
	t.Helper()
	code, stdout, stderr := invoke(t, v, args...)
	if code != exitOK {
		t.Fatalf("jetbox %s = %d %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// A message fails twice, is a dead letter, is redriven and done: show tells
// that story in order.
func TestShow_TellsTheWholeLifeOfAMessage(t *testing.T) {
	t.Parallel()
	i := install(t, brokenYAML)
	v := i.with(nil)
	rewrite(t, v["JETBOX_CONFIG"], "storage: memory", "storage: memory, duplicate_window: 100ms")
	execute(t, i.db, brokenSQL)
	for _, daemon := range []string{"relay", "worker"} {
		url := launch(t, i.with(nil), daemon).address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	var sent struct{ ID, Status string }
	code, text, stderr := invoke(t, v, "send", "--json", "--wait", "20s", i.prefix+".broken", `"ada"`)
	if err := json.Unmarshal([]byte(text), &sent); err != nil || sent.Status != "dead" || code != exitFailure || !strings.Contains(stderr, " is dead: ") {
		t.Fatalf("send = %d %+v %q, %v, want it dead and said so", code, sent, stderr, err)
	}
	if got := succeed(t, v, "dead", "list"); !strings.Contains(got, "no route to ada") || !strings.Contains(got, sent.ID) {
		t.Errorf("dead list = %s, want the error and an example", got)
	}
	if got := succeed(t, v, "dead", "show", sent.ID); !strings.Contains(got, `payload "ada"`) || !strings.Contains(got, "attempt 2") {
		t.Errorf("dead show = %s, want payload and both attempts", got)
	}
	execute(t, i.db, repairedSQL)
	if got := succeed(t, v, "dead", "redrive", "--reason", "no route", "--dry-run"); got != "would redrive 1\n" {
		t.Errorf("dry run = %q, want one", got)
	}
	if got := succeed(t, v, "dead", "redrive", "--reason", "no route"); got != "redrive: 1\n" {
		t.Errorf("redrive = %q, want one", got)
	}
	testenv.Eventually(t, "the end", func() bool {
		return one[int](t, i.db, `SELECT count(*) FROM jetbox.inbox WHERE message_id = $1`, sent.ID) == 1
	})
	var what []string
	for line := range strings.Lines(succeed(t, v, "show", "--json", sent.ID)) {
		var m struct{ What string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		what = append(what, m.What)
	}
	if got, want := strings.Join(what, " "), "inserted published failed failed dead redrive inserted published done"; got != want {
		t.Errorf("story = %s, want %s", got, want)
	}
	if got := succeed(t, v, "show", sent.ID); !strings.Contains(got, " is done\n") || !strings.Contains(got, `result {"ok": true}`) {
		t.Errorf("show = %s, want the state and the result", got)
	}
}

func TestDead_DiscardsOnlyWhatWasChosen(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, reason)
		SELECT jetbox.uuidv7(), 'worker', 'jobs.' || n % 2, '1', 'order ' || n || ' is broken' FROM generate_series(1, 250) n`)
	if got := succeed(t, i.with(nil), "dead", "list", "--json"); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"reason":"order N is broken","letters":125`) {
		t.Errorf("dead list = %s, want two groups", got)
	}
	for _, args := range [][]string{{"dead", "discard", "--all"}, {"dead", "discard", "--yes"}, {"dead", "redrive"}, {"dead", "redrive", "x"}} {
		if code, _, stderr := invoke(t, i.with(nil), args...); code != exitUsage {
			t.Errorf("jetbox %v = %d %q, want %d", args, code, stderr, exitUsage)
		}
	}
	if got := succeed(t, i.with(nil), "dead", "discard", "--subject", "jobs.1", "--yes"); got != "discard: 125\n" {
		t.Errorf("discard = %q, want 125", got)
	}
	if n := one[int](t, i.db, `SELECT count(*) FROM jetbox.dead_letter WHERE subject = 'jobs.0'`); n != 125 {
		t.Errorf("%d letters are left, want 125", n)
	}
}

// More letters than one batch that no outbox takes do not hide the good one.
func TestDead_RedrivesWhatComesAfterManyRefusals(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, reason, died_at)
		SELECT jetbox.uuidv7(), 'worker', CASE n WHEN 0 THEN 'jobs.a' ELSE 'jobs. a' END, '1', 'broken', now() - (n + 1) * interval '1 hour'
		FROM generate_series(0, 120) n`)
	if got := succeed(t, i.with(nil), "dead", "redrive", "--all"); got != "redrive: 1\n" {
		t.Errorf("redrive = %q, want the good one", got)
	}
}

func TestSchedule_ListsAndCancels(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	var sent struct{ ID, Status string }
	if err := json.Unmarshal([]byte(succeed(t, i.with(nil), "send", "--json", "--in", "1h", "jobs.a", "1")), &sent); err != nil || sent.Status != "scheduled" {
		t.Fatalf("send = %+v, %v, want it scheduled", sent, err)
	}
	if got := succeed(t, i.with(nil), "schedule", "list"); !strings.Contains(got, sent.ID) {
		t.Errorf("schedule list = %s, want %s", got, sent.ID)
	}
	succeed(t, i.with(nil), "schedule", "cancel", sent.ID)
	if code, _, stderr := invoke(t, i.with(nil), "schedule", "cancel", sent.ID); code != exitFailure || !strings.Contains(stderr, "is not scheduled") {
		t.Errorf("schedule cancel = %d %q, want %d", code, stderr, exitFailure)
	}
	if got := succeed(t, i.with(nil), "show", sent.ID); !strings.Contains(got, "is cancelled") {
		t.Errorf("show = %s, want cancelled", got)
	}
}

func TestSend_NamesTheRuleThatAMessageBreaks(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	for want, args := range map[string][]string{
		"subject_is_1_to_16_tokens": {"send", "jobs.>", "1"},
		"is not JSON":               {"send", "jobs.a", "{"},
		"headers_has_no_nats":       {"send", "--header", "Nats-Rollup=all", "jobs.a", "1"},
	} {
		if code, _, stderr := invoke(t, i.with(nil), args...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("jetbox %v = %d %q, want %d and %q", args, code, stderr, exitUsage, want)
		}
	}
}

func TestReplay_PublishesAgainWhatItCounted(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	url := launch(t, i.with(nil), "relay").address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) SELECT $1, '1' FROM generate_series(1, 5)`, i.prefix+".a")
	testenv.Eventually(t, "five published", func() bool { return one[int](t, i.db, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch`) == 5 })
	if code, _, stderr := invoke(t, i.with(nil), "replay", "--since", "1h"); code != exitUsage || !strings.Contains(stderr, "add --yes") {
		t.Errorf("replay = %d %q, want %d", code, stderr, exitUsage)
	}
	if code, _, stderr := invoke(t, i.with(nil), "replay", "--yes", "--since", "1h", "--batch", "1"); code != exitUsage || !strings.Contains(stderr, "exactly one") {
		t.Errorf("replay = %d %q, want %d", code, stderr, exitUsage)
	}
	for _, flag := range []string{"--dry-run", "--yes"} {
		var r outbox.Replay
		if err := json.Unmarshal([]byte(succeed(t, i.with(nil), "replay", "--json", "--since", "1h", flag)), &r); err != nil || r.Messages != 5 {
			t.Errorf("replay %s = %+v, %v, want five messages", flag, r, err)
		}
	}
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, i.prefix+".a") // the relay looks up
	testenv.Eventually(t, "five more and the new one", func() bool {
		return one[int](t, i.db, `SELECT sum(n) FROM jetbox.relay_batch`) == 11
	})
}

func TestPause_HoldsMessagesBackUntilResume(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, shoutSQL)
	if code, _, stderr := invoke(t, i.with(nil), "pause", "--consumer", "nobody"); code != exitUsage || !strings.Contains(stderr, "no consumer nobody") {
		t.Errorf("pause = %d %q, want %d", code, stderr, exitUsage)
	}
	for _, daemon := range []string{"relay", "worker"} {
		url := launch(t, i.with(nil), daemon).address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	succeed(t, i.with(nil), "pause")
	var sent struct{ ID, Status string }
	code, text, stderr := invoke(t, i.with(nil), "send", "--json", "--wait", "500ms", i.prefix+".shout", `"x"`)
	if err := json.Unmarshal([]byte(text), &sent); err != nil || sent.Status == "done" || code != exitFailure || !strings.Contains(stderr, "after 500ms") {
		t.Fatalf("send = %d %s %q, %v, want it held back and said so", code, text, stderr, err)
	}
	succeed(t, i.with(nil), "resume")
	testenv.Eventually(t, "the end", func() bool {
		return strings.Contains(succeed(t, i.with(nil), "show", sent.ID), "is done")
	})
}

func TestPause_HoldsTheRelayBackUntilResume(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	succeed(t, i.with(nil), "pause", "relay", "--for", "1h")
	url := launch(t, i.with(nil), "relay").address(t)
	testenv.Eventually(t, "readiness although paused", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1')`, i.prefix+".a")
	if got := succeed(t, i.with(nil), "status"); !strings.Contains(got, "paused until") || !strings.Contains(got, "pending         1\n") {
		t.Errorf("status = %s, want the pause and what waits", got)
	}
	if _, found := diagnose(t, i.with(nil)); found["relay_paused"] != doctor.Warning {
		t.Errorf("doctor found %v, want the pause", found)
	}
	succeed(t, i.with(nil), "resume", "relay")
	testenv.Eventually(t, "the message to be published", func() bool { return one[int](t, i.db, `SELECT coalesce(sum(n), 0) FROM jetbox.relay_batch`) == 1 })
	if got := one[string](t, i.db, `SELECT string_agg(action || ' ' || (details->>'what'), ' ' ORDER BY id) FROM jetbox.operator_action`); got != "pause relay resume relay" {
		t.Errorf("audit = %s, want both", got)
	}
}

func TestStatus_TellsWhetherAnyoneWorks(t *testing.T) {
	t.Parallel()
	i := install(t, shoutYAML)
	execute(t, i.db, shoutSQL)
	if got := succeed(t, i.with(nil), "status"); !strings.Contains(got, "none runs") || !strings.Contains(got, "there is no consumer worker") {
		t.Errorf("status = %s, want neither relay nor worker", got)
	}
	if got := succeed(t, i.with(vars{"NATS_URL": "nats://127.0.0.1:1"}), "status"); !strings.Contains(got, "unknown: unreachable") {
		t.Errorf("status = %s, want it without NATS", got)
	}
	for _, daemon := range []string{"relay", "worker"} {
		url := launch(t, i.with(nil), daemon).address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	succeed(t, i.with(nil), "send", "--wait", "20s", i.prefix+".shout", `"x"`)
	testenv.Eventually(t, "both at work, and the rates", func() bool {
		got := succeed(t, i.with(nil), "status")
		return strings.Contains(got, " leads (epoch ") && strings.Contains(got, "listening (0 in flight") &&
			strings.Contains(got, "1, 0.02/s in the last minute") && strings.Contains(got, "1          0.02")
	})
}

func TestShow_OfAnUnknownMessageSaysSo(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	if code, _, stderr := invoke(t, i.with(nil), "show", uuid.NewString()); code != exitFailure || !strings.Contains(stderr, "no table knows") {
		t.Errorf("show = %d %q, want %d", code, stderr, exitFailure)
	}
	if code, _, stderr := invoke(t, vars{"DATABASE_URL": somewhere}, "show", "17"); code != exitUsage || !strings.Contains(stderr, "is not a message's ID") {
		t.Errorf("show = %d %q, want %d", code, stderr, exitUsage)
	}
	if code, _, stderr := invoke(t, vars{"JETBOX_DATA_DIR": filepath.Join(t.TempDir(), "x")}, "dead", "list"); code != exitUsage || !strings.Contains(stderr, "no jetbox up runs") {
		t.Errorf("dead list = %d %q, want %d", code, stderr, exitUsage)
	}
}

// rewrite replaces text in a file.
func rewrite(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerbs_SayInJSONWhatTheyHaveDone(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	execute(t, i.db, `INSERT INTO jetbox.dead_letter (message_id, consumer, subject, payload, reason)
		SELECT jetbox.uuidv7(), 'worker', 'jobs.' || n, '1', 'broken' FROM generate_series(1, 2) n`)
	id := one[uuid.UUID](t, i.db, `SELECT jetbox.schedule('jobs.a', '1', run_at => now() + interval '1 hour')`)
	for _, c := range []struct{ args, want string }{
		{"dead redrive --subject jobs.1 --dry-run", `{"action":"redrive","dry_run":true,"messages":1,"stay_dead":0}`},
		{"dead redrive --subject jobs.1", `{"action":"redrive","dry_run":false,"messages":1,"stay_dead":0}`},
		{"dead discard --all --yes", `{"action":"discard","dry_run":false,"messages":1,"stay_dead":0}`},
		{"schedule cancel " + id.String(), `{"cancelled":"` + id.String() + `"}`},
		{"pause relay", `{"action":"pause","what":"relay"}`},
		{"resume relay", `{"action":"resume","what":"relay"}`},
		{"token create shop", `{"name":"shop","token":"`},
		{"token revoke shop", `{"revoked":"shop"}`},
	} {
		if got := succeed(t, i.with(nil), append(strings.Fields(c.args), "--json")...); !strings.HasPrefix(got, c.want) || !json.Valid([]byte(got)) {
			t.Errorf("jetbox %s --json = %s, want %s", c.args, got, c.want)
		}
	}
}

func TestVerbs_RefuseTextThatNothingCouldCarry(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	for _, args := range [][]string{
		{"tail", "jobs..a"},
		{"tail", "jobs a"},
		{"tail", "jobs.>.a"},
		{"tail", "jobs."},
		{"send", "jobs.a", "\"\xff\""},
		{"send", "jobs.a", "1", "--header", "from=\xff"},
	} {
		if code, _, stderr := invoke(t, i.with(nil), args...); code != exitUsage {
			t.Errorf("jetbox %q = %d %q, want %d", args, code, stderr, exitUsage)
		}
	}
	if n := one[int](t, i.db, `SELECT count(*) FROM jetbox.outbox`); n != 0 {
		t.Errorf("%d messages were enqueued, want none", n)
	}
}
