package integration_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/process"
)

// as returns the lab as someone sees it who logs in with no more than role.
func (l *lab) as(role string) *lab {
	l.t.Helper()
	name := "jetbox_test_" + strings.ToLower(rand.Text()[:12])
	l.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE %s`, name, role))
	l.t.Cleanup(func() { l.exec(fmt.Sprintf(`DROP OWNED BY %[1]s; DROP ROLE %[1]s`, name)) })
	u, err := url.Parse(l.url)
	if err != nil {
		l.t.Fatal(err)
	}
	u.User = url.UserPassword(name, "secret")
	member := *l
	member.url = u.String()
	return &member
}

// verb runs `jetbox args`, which must succeed, and returns what it prints.
func (l *lab) verb(args ...string) string {
	l.t.Helper()
	out, err := l.invoke(args...)
	if err != nil {
		l.t.Errorf("jetbox %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (l *lab) invoke(args ...string) (string, error) {
	l.t.Helper()
	exe, err := binary()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.CommandContext(l.t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+l.url, "NATS_URL="+testenv.NATSURL(l.t), "JETBOX_CONFIG="+filepath.Join(l.dir, "jetbox.yaml"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// asWorker is a worker that may also do what its handler does.
func (l *lab) asWorker() *lab {
	worker := l.as("jetbox_worker")
	u, err := url.Parse(worker.url)
	if err != nil {
		l.t.Fatal(err)
	}
	l.exec(fmt.Sprintf(`GRANT USAGE ON SCHEMA app TO %[1]s; GRANT INSERT ON app.effect TO %[1]s`, u.User.Username()))
	return worker
}

func TestRoles_RelayAndWorkerDoTheirWholeJob(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.as("jetbox_relay").start("relay", "relay", testenv.NATSURL(t))
	l.asWorker().start("worker", "worker", testenv.NATSURL(t))
	l.insert(0, 100)
	l.exec(`SELECT jetbox.schedule($1, '{"n": 100}')`, l.prefix+".x")
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ('nobody.takes.this', '1')`)
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '{"n": "no number"}')`, l.prefix+".x")
	l.eventually(101, `SELECT count(DISTINCT n) FROM app.effect`)
	l.eventually(1, `SELECT count(*) FROM jetbox.dead_letter WHERE consumer = '$relay'`)
	l.eventually(1, `SELECT count(*) FROM jetbox.failed_attempt WHERE consumer = 'w' AND attempt = 1`)
	l.as("jetbox_operator").verb("replay", "--batch", "1", "--yes")
	l.eventually(1, `SELECT count(*) FROM jetbox.relay_batch WHERE generation = 1 AND n > 100`)
	if n := l.count(`SELECT count(*) FROM app.effect`); n != 101 {
		t.Errorf("%d effects of 101 messages", n)
	}
}

// A provider may keep to itself which cluster it is.
func TestRoles_RelayLeadsWhereItMayNotAskForTheCluster(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(`REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`)
	l.as("jetbox_relay").start("relay", "relay", testenv.NATSURL(t))
	l.insert(0, 10)
	l.eventually(10, `SELECT coalesce(sum(n), 0)::int FROM jetbox.relay_batch`)
}

func TestRoles_OperatorDoesWhatPeopleDo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start("relay", "relay", testenv.NATSURL(t))
	l.start("worker", "worker", testenv.NATSURL(t))
	o := l.as("jetbox_operator")
	for i := range 2 {
		l.exec(`INSERT INTO jetbox.outbox (subject, key, payload) VALUES ('nobody.takes.this', $1::text, '1')`, fmt.Sprint(i))
	}
	l.eventually(2, `SELECT count(*) FROM jetbox.dead_letter`)
	var dead, scheduled string
	l.scan(`SELECT message_id::text FROM jetbox.dead_letter LIMIT 1`, &dead)
	for _, line := range []string{
		"status", "dead list", "dead list --each", "dead show " + dead, "show " + dead, "dead redrive " + dead,
		"dead discard --all --yes", "replay --batch 1 --dry-run",
		"send " + l.prefix + `.x {"n":1} --wait 20s`, "send " + l.prefix + `.x {"n":2} --in 1h`, "schedule list",
		"pause", "resume", "token create shop", "token list", "token revoke shop",
	} {
		o.verb(strings.Fields(line)...)
	}
	o.wantNothingWrong()
	l.scan(`SELECT message_id::text FROM jetbox.scheduled`, &scheduled)
	o.verb("schedule", "cancel", scheduled)
	l.eventually(1, `SELECT count(*) FROM app.effect`)
	l.eventually(0, `SELECT count(*) FROM jetbox.scheduled`)
}

// wantNothingWrong asks jetbox doctor. testenv's own server gives up fsync, for
// speed, and no role of jetbox sees others' transactions.
func (l *lab) wantNothingWrong() {
	l.t.Helper()
	out, err := l.invoke("doctor", "--json")
	n := strings.Count(out, `"check":"fsync"`) + strings.Count(out, `"check":"hidden_transactions"`)
	if n != strings.Count(out, `"check":`) || (n == 0) != (err == nil) {
		l.t.Errorf("doctor = %s, %v, want nothing wrong", out, err)
	}
}

// scan reads one value.
func (l *lab) scan(sql string, into any) {
	l.t.Helper()
	if err := l.db.QueryRow(l.t.Context(), sql).Scan(into); err != nil {
		l.t.Fatal(err)
	}
}

func TestRoles_APIServesJobs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start("relay", "relay", testenv.NATSURL(t))
	l.start("worker", "worker", testenv.NATSURL(t))
	l.as("jetbox_api").wantNothingWrong()
	base := l.address(l.as("jetbox_api").start("api", "api", testenv.NATSURL(t)))
	job := l.request("POST", base+"/jobs", `{"subject": "`+l.prefix+`.x", "payload": {"n": 1}}`, http.StatusAccepted)
	if again := l.request("POST", base+"/jobs", `{"subject": "`+l.prefix+`.x", "payload": {"n": 1}}`, http.StatusAccepted); again != job {
		t.Errorf("the same Idempotency-Key made %s and %s", job, again)
	}
	l.request("GET", base+"/jobs/"+job+"?wait=20s", "", http.StatusOK)
	l.eventually(1, `SELECT count(*) FROM app.effect`)
	later := l.request("POST", base+"/jobs", `{"subject": "`+l.prefix+`.x", "payload": {"n": 2}, "run_at": "2999-01-01T00:00:00Z"}`, http.StatusAccepted)
	l.request("DELETE", base+"/jobs/"+later, "", http.StatusOK)
	lost := l.request("POST", base+"/jobs", `{"subject": "nobody.takes.this", "payload": 1}`, http.StatusAccepted)
	l.eventually(1, `SELECT count(*) FROM jetbox.dead_letter`)
	l.request("GET", base+"/dead", "", http.StatusOK)
	l.request("POST", base+"/dead/"+lost+"/redrive", "", http.StatusAccepted)
}

// address waits for the daemon's HTTP server and returns its URL.
func (l *lab) address(p *process.Process) (base string) {
	l.t.Helper()
	testenv.Eventually(l.t, "the daemon's address in its log", func() bool {
		text, err := os.ReadFile(p.Log)
		if err != nil {
			l.t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), `"http_addr":"`)
		addr, _, _ := strings.Cut(rest, `"`)
		base = "http://" + addr
		return found
	})
	testenv.Eventually(l.t, "the daemon to be ready", func() bool {
		res, err := http.Get(base + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	l.t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return base
}

// request sends body, under a key that is its text, and returns the job's ID.
func (l *lab) request(method, url, body string, want int) string {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, url, bytes.NewBufferString(body))
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if body != "" {
		req.Header.Set("Idempotency-Key", body)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		l.t.Fatalf("%s %s = %d %s, %v, want %d", method, url, res.StatusCode, text, err, want)
	}
	var answer struct{ ID string }
	_ = json.Unmarshal(text, &answer) // not every answer is about one job
	return answer.ID
}
