package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

const confirmedYAML = `
relay: {confirm_grace: 1s}
worker:
  handlers:
    - {subject: PREFIX.shout, sql: public.shout}
`

func TestRelay_HealsAPurgeThatItsConfirmingConsumerMisses(t *testing.T) {
	t.Parallel()
	i := install(t, confirmedYAML)
	execute(t, i.db, shoutSQL)
	relay := launch(t, i.with(nil), "relay", "--confirm-consumer", "worker")
	worker := launch(t, i.with(nil), "worker")
	for _, p := range []*process{relay, worker} {
		url := p.address(t)
		testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	}
	worker.stop() // its consumer stays
	execute(t, i.db, `INSERT INTO jetbox.outbox (subject, payload) SELECT $1, '"a"' FROM generate_series(1, 5)`, i.prefix+".shout")
	purge(t, testenv.NATS(t), strings.ToUpper(i.prefix), 5)
	launch(t, i.with(nil), "worker")
	testenv.Eventually(t, "every message to be processed", func() bool {
		return one[int](t, i.db, `SELECT count(*) FROM jetbox.inbox`) == 5
	})
}

// purge empties the stream once it holds n messages, and waits until the relay
// has published them again. Nobody may take any meanwhile.
func purge(t *testing.T, nc *nats.Conn, stream string, n uint64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	full := func() bool {
		info, err := s.Info(t.Context())
		return err == nil && info.State.Msgs == n
	}
	testenv.Eventually(t, "the messages in the stream", full)
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the messages in the stream again", full)
}

// Its worker is held back meanwhile, as by jetbox pause.
func TestUp_HealsAPurgeByItself(t *testing.T) {
	t.Parallel()
	db := testenv.EmptyDatabase(t)
	broker := testenv.OwnNATS(t).URL()
	url := launch(t, vars{"DATABASE_URL": dsn(db), "NATS_URL": broker}, "up").address(t)
	testenv.Eventually(t, "readiness", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
	v := vars{"DATABASE_URL": dsn(db), "NATS_URL": broker}
	succeed(t, v, "pause", "--for", "1m")
	for range 3 {
		succeed(t, v, "send", "jobs.echo", "1")
	}
	purge(t, testenv.Dial(t, broker), "JOBS", 3)
	succeed(t, v, "resume")
	testenv.Eventually(t, "three results", func() bool {
		return strings.Contains(succeed(t, v, "status", "--json"), `"processed":3`)
	})
}

func TestRelay_RefusesToConfirmWithAStreamOfOthers(t *testing.T) {
	t.Parallel()
	i := install(t, "relay: {confirm_stream: OTHER}")
	code, _, stderr := invoke(t, i.with(vars{"JETBOX_CONFIRM_CONSUMER": "worker"}), "relay")
	if code != exitUsage || !strings.Contains(stderr, "relay.confirm_stream (without it worker.stream): OTHER is not one of the streams") {
		t.Errorf("relay = %d %q, want %d and the stream", code, stderr, exitUsage)
	}
}
