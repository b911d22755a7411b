package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
)

// diagnose runs the doctor and returns what it found, by its level.
func diagnose(t *testing.T, v vars) (code int, found map[string]string) {
	t.Helper()
	code, stdout, stderr := invoke(t, v, "doctor", "--json")
	found = map[string]string{}
	for line := range strings.Lines(stdout) {
		var f doctor.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Fix == "" {
			t.Fatalf("doctor = %q %q, want findings with their fix", stdout, stderr)
		}
		found[f.Check] = f.Level
	}
	delete(found, "fsync")     // testenv's servers give it up for speed
	delete(found, "superuser") // and have no other role
	return code, found
}

func TestDoctor_TellsWarningsFromErrors(t *testing.T) {
	t.Parallel()
	i := install(t, "")
	if _, found := diagnose(t, i.with(nil)); len(found) > 0 {
		t.Errorf("doctor found %v in a good installation", found)
	}
	execute(t, i.db, `ALTER SEQUENCE jetbox.outbox_id_seq CACHE 20`)
	code, found := diagnose(t, i.with(vars{"LOG_LEVEL": "loud", "NATS_URL": "nats://127.0.0.1:1"}))
	if code != exitUsage || found["sequence_cache"] != doctor.Error || found["settings"] != doctor.Error || found["nats"] != doctor.Error {
		t.Errorf("doctor = %d %v, want %d and all three", code, found, exitUsage)
	}
	if code, stdout, _ := invoke(t, i.with(nil), "doctor"); code != exitUsage || !strings.Contains(stdout, "fix: ALTER SEQUENCE") {
		t.Errorf("doctor = %d %q, want %d and the fix", code, stdout, exitUsage)
	}
}

func TestDoctor_ExaminesADatabaseWithoutTheSchema(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	code, found := diagnose(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.NATSURL(t)})
	if code != exitUsage || found["schema"] != doctor.Error || found["postgres"] != "" {
		t.Errorf("doctor = %d %v, want %d and the schema", code, found, exitUsage)
	}
	code, found = diagnose(t, vars{"DATABASE_URL": somewhere, "NATS_URL": testenv.NATSURL(t)})
	if code != exitUsage || found["postgres"] != doctor.Error {
		t.Errorf("doctor = %d %v, want %d and the server", code, found, exitUsage)
	}
}

const mistunedYAML = `
relay: {lease: 5ms}
worker:
  batch: -4
  handlers:
    - {subject: PREFIX.a, exec: [nope-cmd]}
`

// What a daemon would refuse is found before it is started.
func TestDoctor_ExaminesTheDaemonsSettings(t *testing.T) {
	t.Parallel()
	i := install(t, mistunedYAML)
	v := i.with(vars{"JETBOX_DEFAULT_SUBJECT": "a b", "DATABASE_URL": i.vars["DATABASE_URL"] + "&pool_max_conns=2"})
	code, stdout, stderr := invoke(t, v, "doctor", "--json")
	for _, want := range []string{"lease 5ms", "BatchSize -4", `exec: \"nope-cmd\"`, "pool_max_conns is 2", "JETBOX_DEFAULT_SUBJECT"} {
		if code != exitUsage || !strings.Contains(stdout, want) {
			t.Errorf("doctor = %d %s %s, want %d and %s", code, stdout, stderr, exitUsage, want)
		}
	}
}
