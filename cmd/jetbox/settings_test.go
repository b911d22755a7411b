package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func yaml(t *testing.T, text string) string { return writeFile(t, "jetbox.yaml", text) }

// somewhere is a database that no test of mistakes gets to.
const somewhere = "postgres://u@127.0.0.1:1/app"

func TestRun_NamesEachMistake(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args []string
		vars vars
		want string
	}{
		"no database":             {[]string{"relay"}, nil, "missing --database-url (or DATABASE_URL); example: postgres://relay@db/app"},
		"bad escape":              {[]string{"relay"}, vars{"DATABASE_URL": "postgres://u:p%zz@db/app"}, "DATABASE_URL is not a URL"},
		"bad port":                {[]string{"relay"}, vars{"DATABASE_URL": "postgres://u:p@db:99999999/app"}, "invalid port"},
		"bad NATS URL":            {[]string{"relay"}, vars{"DATABASE_URL": somewhere, "NATS_URL": "nats://u:p%zz@h"}, "NATS_URL: server 1 is not a URL"},
		"database password flag":  {[]string{"relay", "--database-url", "postgres://u:secret@db/app"}, nil, "put it in DATABASE_URL"},
		"database keyword flag":   {[]string{"relay", "--database-url", "host=db password=secret"}, nil, "put it in DATABASE_URL"},
		"database spaced flag":    {[]string{"relay", "--database-url", "host=db password = secret"}, nil, "put it in DATABASE_URL"},
		"database query flag":     {[]string{"relay", "--database-url", "postgres://u@db/app?password=secret"}, nil, "put it in DATABASE_URL"},
		"no keywords":             {[]string{"relay"}, vars{"DATABASE_URL": "db"}, "DATABASE_URL cannot be read: invalid keyword/value; example: " + databaseExample},
		"NATS password flag":      {[]string{"relay", "--nats-url", "nats://u:secret@h"}, vars{"DATABASE_URL": somewhere}, "put it in NATS_URL, or use --nats-creds FILE"},
		"NATS token flag":         {[]string{"relay", "--nats-url", "nats://a,token@h"}, vars{"DATABASE_URL": somewhere}, "put it in NATS_URL, or use --nats-creds FILE"},
		"unknown flag":            {[]string{"relay", "--databse-url", "x"}, nil, `did you mean "--database-url"?`},
		"unknown verb":            {[]string{"relya"}, nil, `did you mean "relay"?`},
		"unknown key":             {[]string{"relay", "--config", yaml(t, "relay: {leese: 5s}")}, vars{"DATABASE_URL": somewhere}, `did you mean "lease"?`},
		"config is nowhere":       {[]string{"relay", "--config", "/nowhere.yaml"}, vars{"DATABASE_URL": somewhere}, "config /nowhere.yaml: no such file"},
		"duration without unit":   {[]string{"relay", "--outbox-retention", "5"}, vars{"DATABASE_URL": somewhere}, `OUTBOX_RETENTION: "5" is not a duration above zero; examples: 500ms`},
		"negative duration":       {[]string{"worker"}, vars{"DATABASE_URL": somewhere, "ACK_WAIT": "-1s"}, `ACK_WAIT: "-1s" is not a duration`},
		"zero duration":           {[]string{"worker"}, vars{"DATABASE_URL": somewhere, "SHUTDOWN_TIMEOUT": "0"}, `SHUTDOWN_TIMEOUT: "0" is not a duration`},
		"inbox forgets too early": {[]string{"worker"}, vars{"DATABASE_URL": somewhere, "OUTBOX_RETENTION": "48h", "INBOX_RETENTION": "48h"}, "INBOX_RETENTION is 48h0m0s and OUTBOX_RETENTION 48h0m0s"},
		"inbox forgets what a stream keeps": {
			[]string{"worker", "--config", yaml(t, "streams: [{name: JOBS, subjects: [jobs.>], max_age: 720h}]")},
			vars{"DATABASE_URL": somewhere},
			"INBOX_RETENTION is 336h0m0s and stream JOBS keeps messages for max_age 720h0m0s",
		},
		"log level":    {[]string{"worker"}, vars{"DATABASE_URL": somewhere, "LOG_LEVEL": "loud"}, `LOG_LEVEL: "loud" is not`},
		"streams mode": {[]string{"relay", "--streams", "maybe"}, vars{"DATABASE_URL": somewhere}, `"maybe" is not ensure or verify`},
		"lease":        {[]string{"relay", "--config", yaml(t, "relay: {lease: 5ms}")}, vars{"DATABASE_URL": somewhere}, "lease 5ms"},
		"batch":        {[]string{"worker", "--config", yaml(t, "worker: {batch: 1000000000}")}, vars{"DATABASE_URL": somewhere}, "BatchSize 1000000000"},
		"small pool":   {[]string{"worker"}, vars{"DATABASE_URL": somewhere + "?pool_max_conns=2"}, "pool_max_conns is 2, need 10"},
		"no handlers for a stream of one's own": {
			[]string{"worker", "--config", yaml(t, "streams: [{name: A, subjects: [a.>]}]")},
			vars{"DATABASE_URL": somewhere},
			"worker.handlers is empty",
		},
		"secret twice":                    {[]string{"relay"}, vars{"DATABASE_URL": somewhere, "DATABASE_URL_FILE": "/x"}, "DATABASE_URL and DATABASE_URL_FILE are both set"},
		"secret file missing":             {[]string{"relay"}, vars{"DATABASE_URL": somewhere, "NATS_TOKEN_FILE": "/nowhere"}, "NATS_TOKEN_FILE: open /nowhere"},
		"secret file empty":               {[]string{"relay"}, vars{"DATABASE_URL": somewhere, "NATS_TOKEN_FILE": writeFile(t, "empty", "\n")}, "is empty"},
		"address without a host":          {[]string{"relay"}, vars{"DATABASE_URL": somewhere, "HTTP_ADDR": "8080"}, `"8080" is not host:port`},
		"address without a port":          {[]string{"worker", "--http-addr", "foo"}, vars{"DATABASE_URL": somewhere}, "examples: 127.0.0.1:8080, :8080"},
		"address beyond ports":            {[]string{"api"}, vars{"DATABASE_URL": somewhere, "HTTP_ADDR": "127.0.0.1:99999"}, "a port of 0 to 65535"},
		"default subject":                 {[]string{"api"}, vars{"DATABASE_URL": somewhere, "JETBOX_DEFAULT_SUBJECT": "a b"}, "example: jobs.default"},
		"default subject with a wildcard": {[]string{"up", "--default-subject", "jobs.>"}, vars{"DATABASE_URL": somewhere}, `JETBOX_DEFAULT_SUBJECT): "jobs.>" is not`},
		"negative wait":                   {[]string{"send", "jobs.a", "1", "--wait=-1s"}, vars{"DATABASE_URL": somewhere}, "--wait -1s is less than nothing"},
		"down without yes":                {[]string{"migrate", "down", "--to", "0"}, vars{"DATABASE_URL": somewhere}, "add --yes"},
		"down to a wrong place":           {[]string{"migrate", "down", "--to", "999", "--yes"}, vars{"DATABASE_URL": somewhere}, "--to is 999"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := invoke(t, tt.vars, tt.args...)
			if code != exitUsage || !strings.Contains(stderr, tt.want) {
				t.Errorf("jetbox %v = %d %q, want %d and %q", tt.args, code, stderr, exitUsage, tt.want)
			}
		})
	}
}

func TestRun_NamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	code, _, stderr := invoke(t, vars{
		"NATS_URL": "http://x", "NATS_PASSWORD": "p", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml",
		"OUTBOX_RETENTION": "x", "ACK_WAIT": "y", "JETBOX_STREAMS": "z",
	}, "up", "--database-url", "postgres://u:p@h/d", "--config", yaml(t, "relay: {leese: 1s}\nworker: {batch: z}"))
	for _, want := range []string{
		"--database-url holds", "NATS_URL", "NATS_PASSWORD", "LOG_LEVEL", "LOG_FORMAT",
		"OUTBOX_RETENTION", "ACK_WAIT", "JETBOX_STREAMS", "leese", `"z" is not a whole number`,
	} {
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("up = %d %q, want %d and %q", code, stderr, exitUsage, want)
		}
	}
}

func TestRun_NeverShowsASecret(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]vars{
		"bad escape":       {"DATABASE_URL": "postgres://u:hunter2%zz@db/app"},
		"hash in password": {"DATABASE_URL": "postgres://u:hunter2#x@db/app"},
		"bad port":         {"DATABASE_URL": "postgres://u:hunter2@db:99999999/app"},
		"keywords":         {"DATABASE_URL": "host=db password=hunter2 port=x"},
		"broken keywords":  {"DATABASE_URL": "host=db password='hunter2"},
		"spaced keywords":  {"DATABASE_URL": "host=127.0.0.1 password = hunter2 foo"},
		"stray password":   {"DATABASE_URL": "host=127.0.0.1 hunter2 x=y"},
		"password alone":   {"DATABASE_URL_FILE": writeFile(t, "password", "hunter2\n")},
		"misplaced":        {"DATABASE_URL": "host=db target_session_attrs=hunter2"},
		"nobody listens":   {"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/app"},
		"NATS":             {"DATABASE_URL": somewhere, "NATS_URL": "nats://u:hunter2%zz@h"},
		"NATS password":    {"DATABASE_URL": somewhere, "NATS_PASSWORD": "hunter2", "NATS_USER": "u", "NATS_TOKEN": "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"relay"}
			if strings.HasPrefix(name, "nobody") {
				args = []string{"status"}
			}
			code, stdout, stderr := invoke(t, v, args...)
			if code == exitOK || strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("jetbox %v = %d %q, want a failure without the secret", args, code, stdout+stderr)
			}
		})
	}
}

func TestSettings_FlagWinsOverVariableAndVariableOverFile(t *testing.T) {
	t.Parallel()
	file := yaml(t, "relay: {retention: 1h}\nworker: {ack_wait: 7s}")
	for name, tt := range map[string]struct {
		flags daemonFlags
		vars  vars
		want  time.Duration
	}{
		"default":  {daemonFlags{}, nil, 24 * time.Hour},
		"file":     {daemonFlags{Config: file}, nil, time.Hour},
		"variable": {daemonFlags{Config: file}, vars{"OUTBOX_RETENTION": "2h"}, 2 * time.Hour},
		"flag":     {daemonFlags{Config: file, OutboxRetention: "3h"}, vars{"OUTBOX_RETENTION": "2h"}, 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tt.flags.settings(world{environ: tt.vars.environ(), stderr: &output{}})
			if got := s.relay.Retention; got != tt.want || len(s.mistakes) > 0 {
				t.Errorf("retention = %s (%v), want %s", got, s.mistakes, tt.want)
			}
		})
	}
}

func TestSettings_ReadSecretsFromFiles(t *testing.T) {
	t.Parallel()
	v := vars{
		"DATABASE_URL_FILE": writeFile(t, "db", "postgres://u:fromfile@db/app\n"),
		"NATS_USER":         "u", "NATS_PASSWORD_FILE": writeFile(t, "nats", "natssecret\r\n"),
	}
	s := daemonFlags{}.settings(world{environ: v.environ(), stderr: &output{}})
	db, err := databaseFlags{}.config(s.env, "test")
	if err != nil || len(s.mistakes) > 0 {
		t.Fatal(err, s.mistakes)
	}
	if db.ConnConfig.Password != "fromfile" || s.nats.Password != "natssecret" {
		t.Errorf("passwords = %q and %q, want those of the files", db.ConnConfig.Password, s.nats.Password)
	}
}

func TestRun_AnswersWithTheExitCodeForTheReason(t *testing.T) {
	t.Parallel()
	empty := dsn(testenv.EmptyDatabase(t))
	ahead := testenv.Database(t)
	execute(t, ahead, `INSERT INTO jetbox.migration (version_id, is_applied) VALUES (999, true)`)
	aheadURL := dsn(ahead.Config().ConnConfig)
	for name, tt := range map[string]struct {
		args []string
		vars vars
		want int
	}{
		"nothing asked":         {nil, nil, exitOK},
		"help":                  {[]string{"--help"}, nil, exitOK},
		"help of a verb":        {[]string{"relay", "--help"}, nil, exitOK},
		"version":               {[]string{"version", "--json"}, nil, exitOK},
		"migrate, nobody there": {[]string{"migrate", "up", "--wait", "0s"}, vars{"DATABASE_URL": somewhere}, exitUnreachable},
		"status, nobody there":  {[]string{"status"}, vars{"DATABASE_URL": somewhere}, exitUnreachable},
		"relay, no schema":      {[]string{"relay"}, vars{"DATABASE_URL": empty}, exitSchema},
		"worker, no schema":     {[]string{"worker"}, vars{"DATABASE_URL": empty}, exitSchema},
		"status, no schema":     {[]string{"status"}, vars{"DATABASE_URL": empty}, exitSchema},
		"relay, newer schema":   {[]string{"relay"}, vars{"DATABASE_URL": aheadURL}, exitSchema},
		"migrate, newer schema": {[]string{"migrate", "up"}, vars{"DATABASE_URL": aheadURL}, exitSchema},
		"up, newer schema":      {[]string{"up"}, vars{"DATABASE_URL": aheadURL, "NATS_URL": "nats://127.0.0.1:1"}, exitSchema},
		"wrong password is no outage": {
			[]string{"migrate", "up", "--wait", "1m"},
			vars{"DATABASE_URL": strings.Replace(empty, "postgres://", "postgres://nobody_", 1)},
			exitFailure,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := vars{"HTTP_ADDR": "127.0.0.1:0"}
			for name, value := range tt.vars {
				v[name] = value
			}
			if code, stdout, stderr := invoke(t, v, tt.args...); code != tt.want {
				t.Errorf("jetbox %v = %d, want %d: %s%s", tt.args, code, tt.want, stdout, stderr)
			}
		})
	}
}

func TestMigrate_GoesUpAndDownAndSaysWhere(t *testing.T) {
	t.Parallel()
	v := vars{"DATABASE_URL": dsn(testenv.EmptyDatabase(t))}
	steps := []struct {
		args []string
		want string
	}{
		{[]string{"migrate", "up"}, "applied 00001_uuidv7.sql"},
		{[]string{"migrate", "up"}, "the database is at version"},
		{[]string{"migrate", "status"}, "applied  00001_uuidv7.sql"},
		{[]string{"migrate", "down", "--to", "1", "--yes"}, "the database is at version 1"},
		{[]string{"migrate", "status", "--json"}, `{"version":2,"file":"00002_headers.sql","applied":false}`},
	}
	for _, s := range steps {
		if code, stdout, stderr := invoke(t, v, s.args...); code != exitOK || !strings.Contains(stdout+stderr, s.want) {
			t.Errorf("jetbox %v = %d %q %q, want %q", s.args, code, stdout, stderr, s.want)
		}
	}
}
