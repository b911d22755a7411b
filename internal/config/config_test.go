package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jetbox.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `# all there is
streams:
  - name: ORDERS
    subjects: [orders.>, "refunds.*"]
    retention: limits
    storage: memory
    replicas: 3
    max_age: 48h
    max_msgs: 1_000_000
    max_bytes: 10737418240
    duplicate_window: 5m
relay:
  retention: 48h
  lease: 5s
  fallback_poll: 2s
  confirm_consumer: billing
  confirm_stream: ORDERS
  confirm_grace: 1m
worker:
  stream: ORDERS
  consumer: billing
  calls: 8
  subjects:
    - orders.paid
  batch: 100
  handlers:
    - {subject: orders.paid, sql: app.bill, role: app_worker, max_attempts: 9}
    - subject: refunds.*
      http: https://billing.example.com/hook
      headers: {X-Team: billing}
      headers_from_env:
        Authorization: BILLING_TOKEN
      allow_private: true
      timeout: 10s
    - {subject: orders.shipped, exec: [./notify, --all], env: [SMTP_HOST]}
`

var (
	wholeRelay = Relay{
		Retention: Duration(48 * time.Hour), Lease: Duration(5 * time.Second), FallbackPoll: Duration(2 * time.Second),
		ConfirmConsumer: "billing", ConfirmStream: "ORDERS", ConfirmGrace: Duration(time.Minute),
	}
	wholeWorker = Worker{
		Stream: "ORDERS", Consumer: "billing", Subjects: []string{"orders.paid"}, Calls: 8,
		Batch: 100, Handlers: []Handler{
			{Subject: "orders.paid", SQL: "app.bill", Role: "app_worker", MaxAttempts: 9},
			{
				Subject: "refunds.*", HTTP: "https://billing.example.com/hook", Headers: map[string]string{"X-Team": "billing"},
				HeadersFromEnv: map[string]string{"Authorization": "BILLING_TOKEN"}, AllowPrivate: true, Timeout: Duration(10 * time.Second),
			},
			{Subject: "orders.shipped", Exec: []string{"./notify", "--all"}, Env: []string{"SMTP_HOST"}},
		},
	}
)

func TestLoad_ReadsEveryKey(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unix":            whole,
		"windows":         "\xef\xbb\xbf" + strings.ReplaceAll(whole, "\n", "\r\n"),
		"document marker": "---\n" + whole,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Load(write(t, text))
			if err != nil {
				t.Fatal(err)
			}
			want := jetstream.StreamConfig{
				Name: "ORDERS", Subjects: []string{"orders.>", "refunds.*"},
				Retention: jetstream.LimitsPolicy, Storage: jetstream.MemoryStorage, Replicas: 3,
				MaxAge: 48 * time.Hour, MaxMsgs: 1_000_000, MaxBytes: 10 << 30, Duplicates: 5 * time.Minute,
				Discard: jetstream.DiscardNew, AllowAtomicPublish: true, AllowBatchPublish: true,
			}
			if got := f.StreamConfigs(); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
				t.Errorf("streams = %+v\nwant %+v", got, want)
			}
			if f.Relay != wholeRelay {
				t.Errorf("relay = %+v, want %+v", f.Relay, wholeRelay)
			}
			if at := f.Worker.Handlers[1].At(); !strings.HasSuffix(at, ":7") {
				t.Errorf("the second handler is at %s, want column 7", at)
			}
			for i := range f.Worker.Handlers {
				f.Worker.Handlers[i].at = "" // depends on the file's name
			}
			if !reflect.DeepEqual(f.Worker, wholeWorker) {
				t.Errorf("worker = %+v, want %+v", f.Worker, wholeWorker)
			}
		})
	}
}

func TestLoad_TakesTheDefaultStreamWhenNoneIsNamed(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "a comment": "# nothing\n", "empty section": "streams:\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Load(write(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if got := f.StreamConfigs(); len(got) != 1 || got[0].Name != "JOBS" || got[0].Retention != jetstream.WorkQueuePolicy {
				t.Errorf("streams = %+v, want the work queue JOBS", got)
			}
		})
	}
}

func TestLoad_SaysWhereAMistakeIs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"unknown section":    {"stream:\n  - name: A\n", `:1:1: unknown key "stream", did you mean "streams"?`},
		"unknown key":        {"worker:\n  batchs: 5\n", `:2:3: unknown key "batchs", did you mean "batch"?`},
		"far from any key":   {"relay:\n  colour: red\n", `:2:3: unknown key "colour"; known here: retention, lease`},
		"a word for a count": {"worker:\n  batch: many\n", `:2:10: "many" is not a whole number`},
		"no unit":            {"relay:\n  lease: 5\n", `:2:10: "5" is not a duration above zero; examples`},
		"negative duration":  {"relay:\n  lease: -1s\n", `"-1s" is not a duration above zero`},
		"zero duration":      {"relay:\n  lease: 0s\n", `"0s" is not a duration above zero`},
		"two durations":      {"relay:\n  lease: 1h1x\n", `"1h1x" is not a duration above zero`},
		"wrong retention":    {"streams:\n  - name: A\n    subjects: [a]\n    retention: queue\n", `:4:16: "queue" is not limits, workqueue or interest`},
		"wrong storage":      {"streams:\n  - name: A\n    subjects: [a]\n    storage: tape\n", `"tape" is not file or memory`},
		"list expected":      {"worker:\n  subjects: jobs.a\n", `:2:13: need a list`},
		"mapping expected":   {"relay: fast\n", `:1:8: need keys and values: retention`},
		"plain expected":     {"worker:\n  stream: [A]\n", `need a single plain value`},
		"tab":                {"relay:\n\tlease: 5s\n", `:2:1: `},
		"duplicate key":      {"relay:\n  lease: 5s\n  lease: 6s\n", `:3:3: the key "lease" is here twice`},
		"alias":              {"relay: &r\n  lease: 5s\nworker: *r\n", `:3:9: an alias: write the value out`},
		"merge key":          {"relay: &r\n  <<: *r\n", `:2:3: unknown key "<<"`},
		"second document":    {"relay:\n---\nworker:\n", `:2:1: a second document`},
		"empty document":     {"relay:\n---", `:2:1: a second document`},
		"control character":  {"relay:\n  lease: \x01\n", `control characters are not allowed`},
		"not UTF-8":          {"relay:\n  lease: \xff\n", `invalid leading UTF-8 octet`},
		"open quote":         {"worker:\n  stream: \"A\n", `:3:1: found unexpected end of stream`},
		"deep":               {strings.Repeat("[", 20_000), `exceeded max depth`},
		"key of keys":        {"? {a: b}\n: c\n", `:1:3: unknown key ""`},
		"no subjects":        {"streams:\n  - name: A\n", `entry 1 (A): subjects: need at least one`},
		"bad name":           {"streams:\n  - name: A.B\n    subjects: [a]\n", `name "A.B": need`},
		"bad subject":        {"streams:\n  - name: A\n    subjects: [a..b]\n", `"a..b" is not a subject`},
		"name twice":         {"streams:\n  - {name: A, subjects: [a]}\n  - {name: A, subjects: [b]}\n", `the name A is taken`},
		"six replicas":       {"streams:\n  - {name: A, subjects: [a], replicas: 6}\n", `replicas is 6, need 1 to 5`},
		"negative limit":     {"streams:\n  - {name: A, subjects: [a], max_msgs: -1}\n", `leave out what has no limit`},
		"half a handler":     {handlers("subject: jobs.a"), `:3:7: handler for jobs.a: need one of sql, http and exec, got none`},
		"two in one":         {handlers("subject: jobs.a", "sql: app.a", "exec: [a]"), `:3:7: handler for jobs.a: need one of sql, http and exec, got exec and sql`},
		"no subject":         {handlers("sql: app.a"), `:3:7: handler: subject "" is not a subject such as jobs.email`},
		"another's keys":     {handlers("subject: jobs.a", "sql: app.a", "env: [A]", "headers: {A: b}"), "env does not go with sql\n"},
		"another's role":     {handlers("subject: jobs.a", "http: https://a.example", "role: a"), "role does not go with http"},
		"another's private":  {handlers("subject: jobs.a", "exec: [a]", "allow_private: true"), "allow_private does not go with exec"},
		"former key":         {handlers("subject: jobs.a", "function: app.a"), `:4:7: unknown key "function"`},
		"attempts below one": {handlers("subject: jobs.a", "sql: app.a", "max_attempts: -1"), "max_attempts is -1, need 1 or more"},
		"neither yes nor no": {handlers("subject: jobs.a", "http: https://a.example", "allow_private: yes"), `:5:22: "yes" is not true or false`},
		"headers in a list":  {handlers("subject: jobs.a", "http: https://a.example", "headers: [a]"), `:5:16: need keys and values`},
		"NUL":                {"relay:\n\x00", `line 2 holds a NUL byte`},
		"too large":          {strings.Repeat("#\n", maxSize), `is larger than`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := write(t, tt.text)
			_, err := Load(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load = %v, want %q and the path", err, tt.want)
			}
		})
	}
}

// handlers is a file with one handler of these lines.
func handlers(lines ...string) string {
	return "worker:\n  handlers:\n    - " + strings.Join(lines, "\n      ") + "\n"
}

func TestLoad_ReportsEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Load(write(t, "relay:\n  lease: 5\n  retenton: 1h\nworker:\n  batch: x\n"))
	for _, want := range []string{":2:10:", ":3:3:", ":5:10:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load = %v, want a mistake at %s", err, want)
		}
	}
}

func TestLoad_NamesAPathThatIsNoReadableFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("Load of a directory = %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Load of nothing = %v", err)
	}
}

func TestNearest_FindsTheWordThatWasMeant(t *testing.T) {
	t.Parallel()
	known := []string{"subjects", "storage", "replicas"}
	for word, want := range map[string]string{
		"subject": "subjects", "storge": "storage", "replikas": "replicas", "colour": "", "": "",
		"storxxe": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestLoad_AcceptsTheExample(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "jetbox.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := Load(write(t, string(text)))
	if err != nil {
		t.Fatal(err)
	}
	before, handlers, _ := strings.Cut(string(text), "  # handlers:")
	meant, err := Load(write(t, before+"  handlers:"+strings.ReplaceAll(handlers, "\n  # ", "\n  ")))
	if err != nil || len(meant.Worker.Handlers) != 3 {
		t.Errorf("with its handlers: %d of them, %v, want one of each kind", len(meant.Worker.Handlers), err)
	}
	if got, want := f.StreamConfigs()[0], (File{}).StreamConfigs()[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("stream = %+v, want the default as its comment says: %+v", got, want)
	}
}
