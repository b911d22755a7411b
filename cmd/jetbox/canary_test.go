package main

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/localenv"
)

// canary is every secret of these tests: wherever it is seen, one has got out.
const canary = "c4n4ry-hunter2"

const letter = "01890a5d-ac96-774b-bcce-b302099a8057"

// daemons run until they are stopped.
var daemons = []string{"relay", "worker", "api", "up"}

// verbs are the others, each with what it needs to get as far as a server.
// Only demo is not here: it takes no secret and brings its own servers.
var verbs = []string{
	"status", "health", "tail jobs.>", "show " + letter, "dead list", "dead show " + letter, "dead redrive " + letter, "dead discard --all --yes",
	"send jobs.a {} --in 1h", "schedule list", "schedule cancel " + letter, "replay --since 1h --dry-run", "pause relay --for 1s", "pause", "resume relay", "resume",
	"token create shop", "token list", "token revoke shop", "doctor", "doctor --json",
	"migrate up --wait 0s", "migrate status --wait 0s", "migrate down --to 99 --yes", "version", "completion bash",
}

// benches measure for long where they get to a server.
var benches = []string{"bench relay", "bench worker", "bench e2e", "bench insert", "bench grow"}

func TestCanary_KnowsEveryVerb(t *testing.T) {
	t.Parallel()
	lines := slices.Concat(daemons, verbs, benches, []string{"demo"})
	for _, verb := range parser(t).Model.Leaves(true) {
		path := strings.Join(words(verb.Path()), " ")
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line+" ", path+" ") }) {
			t.Errorf("jetbox %s is not looked at", path)
		}
	}
}

// tells runs a command to its end, or until a daemon has complained.
func tells(t *testing.T, v vars, line string) string {
	t.Helper()
	if !slices.Contains(daemons, line) {
		_, stdout, stderr := invoke(t, v, strings.Fields(line)...)
		return stdout + stderr
	}
	var out output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, strings.Fields(line), world{environ: v.environ(), stdout: &out, stderr: &out})
	}()
	testenv.Eventually(t, "jetbox "+line+" to end or to warn", func() bool {
		return len(ended) > 0 || strings.Contains(out.String(), `"level":"WARN"`)
	})
	cancel()
	<-ended
	return out.String()
}

func holdsCanary(text string) bool { return strings.Contains(text, canary) }

func TestVerbs_NeverShowASecretThatDoesNotWork(t *testing.T) {
	t.Parallel()
	db := *urlOf(t, dsn(testenv.Database(t).Config().ConnConfig))
	db.User = url.UserPassword("nobody_at_all", canary)
	nats := testenv.OwnNATS(t, login("jetbox", "another"))
	for name, v := range map[string]vars{
		"refused":             {"DATABASE_URL": db.String(), "NATS_URL": natsURL(nats)},
		"nobody":              {"DATABASE_URL": "postgres://u:" + canary + "@127.0.0.1:1/app", "NATS_URL": "nats://u:" + canary + "@127.0.0.1:1"},
		"nobody, in keywords": {"DATABASE_URL": "host=127.0.0.1 port=1 user=u password=" + canary, "NATS_URL": "nats://" + canary + "@127.0.0.1:1"},
		"garbled":             {"DATABASE_URL": "postgres://u:" + canary + "%zz@db/app", "NATS_URL": "nats://u:" + canary + "%zz@h"},
		"options":             {"DATABASE_URL": "postgres://u@127.0.0.1:1/app?sslmode=maybe&password=" + canary, "NATS_USER": "u", "NATS_PASSWORD": canary, "NATS_TOKEN": canary},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v["HTTP_ADDR"], v["LOG_LEVEL"], v["LOG_FORMAT"] = "127.0.0.1:0", "debug", "json"
			for _, line := range slices.Concat(daemons, verbs, benches) {
				if line == "up" && strings.HasPrefix(name, "nobody") {
					continue // it waits for a quarter of a minute
				}
				if told := tells(t, v, line); holdsCanary(told) {
					t.Errorf("jetbox %s shows a secret: %s", line, told)
				}
			}
		})
	}
}

func urlOf(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// login lets a user in with a password.
func login(user, password string) func(*server.Options) {
	return func(o *server.Options) { o.Users = []*server.User{{Username: user, Password: password}} }
}

// natsURL has the canary for a password.
func natsURL(n *localenv.NATS) string {
	return strings.Replace(n.URL(), "nats://", "nats://jetbox:"+canary+"@", 1)
}
