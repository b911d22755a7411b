package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/localenv"
)

// secretly is an installation whose passwords are all the canary, and work. Its
// handler fails with the canary for a DETAIL, where Postgres quotes rows.
func secretly(t *testing.T) (installation, *localenv.NATS) {
	t.Helper()
	i, nats := install(t, brokenYAML+"relay: {lease: 2s}\n"), testenv.OwnNATS(t, login("jetbox", canary))
	execute(t, i.db, strings.Replace(brokenSQL, `'{}';`, `'{}' USING DETAIL = '`+canary+`';`, 1))
	role := "jetbox_canary_" + i.prefix
	execute(t, i.db, fmt.Sprintf(`CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'`, role, canary))
	t.Cleanup(func() { _, _ = i.db.Exec(context.Background(), `DROP ROLE `+role) })
	db := urlOf(t, i.vars["DATABASE_URL"])
	db.User = url.UserPassword(role, canary)
	i.vars = i.with(vars{"DATABASE_URL": db.String(), "NATS_URL": natsURL(nats), "LOG_LEVEL": "debug", "LOG_FORMAT": "json"})
	return i, nats
}

// Everything works, and breaks, and works again, before the logs are searched.
func TestVerbs_NeverShowASecretThatWorks(t *testing.T) {
	t.Parallel()
	i, nats := secretly(t)
	var running []*process
	for _, daemon := range []string{"relay", "worker", "api"} {
		p := launch(t, i.with(nil), daemon)
		running = append(running, p)
		address := p.address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, address+"/readyz"); return code == http.StatusOK })
	}
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1'), ('nobody.takes.this', '1')`, i.prefix+".broken")
	testenv.Eventually(t, "two dead letters", func() bool { return one[int](t, i.db, `SELECT count(*) FROM jetbox.dead_letter`) == 2 })
	for _, line := range slices.DeleteFunc(slices.Clone(verbs), func(line string) bool { return strings.HasPrefix(line, "tail") }) {
		if told := tells(t, i.with(nil), line); holdsCanary(told) {
			t.Errorf("jetbox %s shows a secret: %s", line, told)
		}
	}
	i.breakDown(t, nats, running[0])
	for n, p := range running {
		if p.stop(); holdsCanary(p.stderr.String()) {
			t.Errorf("daemon %d logs a secret: %s", n, p.stderr.String())
		}
	}
}

// breakDown takes NATS away, and then every connection to Postgres, and waits
// until the relay has come back each time.
func (i installation) breakDown(t *testing.T, nats *localenv.NATS, relay *process) {
	t.Helper()
	wait := func(message string, times int) {
		t.Helper()
		testenv.Eventually(t, message, func() bool { return strings.Count(relay.stderr.String(), `"msg":"`+message) >= times })
	}
	if err := nats.Stop(); err != nil {
		t.Fatal(err)
	}
	wait("lost NATS", 1)
	if err := nats.Start(); err != nil {
		t.Fatal(err)
	}
	wait("relay leads", 2)
	execute(t, i.db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'jetbox_canary_' || $1`, i.prefix)
	wait("relay leads", 3)
}
