package integration_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
	"github.com/jetboxhq/jetbox/internal/natsconn"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/outbox"
)

// guarded is a server with the users of deploy/nats-permissions.conf.
type guarded struct {
	t     *testing.T
	url   string
	seeds map[string]string // files, by user
}

// newGuarded gives each user a key pair; the server learns the public keys as an
// installation's would, from its environment.
func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{t: t, seeds: map[string]string{}}
	for _, user := range []string{"setup", "relay", "worker", "operator"} {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		seed, seedErr := pair.Seed()
		public, publicErr := pair.PublicKey()
		g.seeds[user] = filepath.Join(t.TempDir(), user+".nk")
		if err := errors.Join(seedErr, publicErr, os.WriteFile(g.seeds[user], seed, 0o600)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("JETBOX_"+strings.ToUpper(user)+"_NKEY", public)
	}
	conf, err := server.ProcessConfigFile("../deploy/nats-permissions.conf")
	if err != nil {
		t.Fatal(err)
	}
	g.url = testenv.OwnNATS(t, func(o *server.Options) {
		o.Accounts, o.Nkeys, o.SystemAccount = conf.Accounts, conf.Nkeys, conf.SystemAccount
	}).URL()
	return g
}

// dial connects as jetbox's parts do.
func (g *guarded) dial(user, part string, more ...nats.Option) *nats.Conn {
	g.t.Helper()
	nc, err := natsconn.Config{URL: g.url, NKey: g.seeds[user]}.Dial("test", "_INBOX_"+part, more...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(nc.Close)
	return nc
}

func (g *guarded) jetStream(user, part string) jetstream.JetStream {
	g.t.Helper()
	js, err := jetstream.New(g.dial(user, part))
	if err != nil {
		g.t.Fatal(err)
	}
	return js
}

// dialer is a daemon's; what the server refuses fails the test.
func (g *guarded) dialer(user, part string) func() (*nats.Conn, error) {
	return func() (*nats.Conn, error) {
		return natsconn.Config{URL: g.url, NKey: g.seeds[user]}.Dial("test", "_INBOX_"+part,
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				g.t.Errorf("%s as %s: %v", part, user, err)
			}))
	}
}

// run runs a daemon until the returned function stops it, or the test ends.
func (g *guarded) run(daemon func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- daemon(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	}
	g.t.Cleanup(stop)
	return stop
}

func TestPermissions_RelayAndWorkerDoTheirWholeJob(t *testing.T) {
	g := newGuarded(t)
	db := testenv.Database(t)
	if err := streams.Ensure(t.Context(), g.jetStream("setup", "setup"), []jetstream.StreamConfig{streams.Default()}, false); err != nil {
		t.Fatal(err)
	}
	worker := func(user string) (stop func()) {
		w, err := inbox.NewWorker(db, g.dialer(user, "worker"), inbox.WorkerConfig{Stream: "JOBS", RetryDelay: time.Millisecond},
			inbox.HandleTx("jobs.*", func(_ context.Context, _ pgx.Tx, m inbox.Message[int]) (int, error) {
				if m.Attempt == 1 && m.Payload == 1 {
					return 0, errors.New("once more") // a nak
				}
				return m.Payload, nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		return g.run(w.Run)
	}
	stop := worker("setup")
	testenv.Eventually(t, "the consumer to be made", func() bool {
		_, err := g.jetStream("setup", "setup").Consumer(t.Context(), "JOBS", "worker")
		return err == nil
	})
	stop()

	const n = 3000 // enough that each route is tried
	if _, err := db.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload) SELECT 'jobs.a', to_json(i) FROM generate_series(1, $1::int) i`, n); err != nil {
		t.Fatal(err)
	}
	r, err := outbox.NewRelay(db.Config().ConnConfig, g.dialer("relay", "relay"), outbox.RelayConfig{
		VerifyStreams: true, ConfirmConsumer: "worker", ConfirmGrace: time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.run(r.Run)
	worker("worker")
	testenv.Eventually(t, "every message to be processed", func() bool {
		var done int
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM jetbox.inbox`).Scan(&done); err != nil {
			t.Fatal(err)
		}
		return done == n
	})
}

func TestPermissions_OperatorPausesAndExamines(t *testing.T) {
	g := newGuarded(t)
	setup := g.jetStream("setup", "setup")
	if err := streams.Ensure(t.Context(), setup, []jetstream.StreamConfig{streams.Default()}, false); err != nil {
		t.Fatal(err)
	}
	consumer := jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1}
	if _, err := setup.CreateConsumer(t.Context(), "JOBS", consumer); err != nil {
		t.Fatal(err)
	}
	operator := g.jetStream("operator", "operator")
	if _, err := operator.PauseConsumer(t.Context(), "JOBS", "worker", time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := operator.ResumeConsumer(t.Context(), "JOBS", "worker"); err != nil {
		t.Error(err)
	}
	found, err := doctor.NATS(t.Context(), g.dial("operator", "doctor"), doctor.Config{
		Streams: []jetstream.StreamConfig{streams.Default()}, Stream: "JOBS", Consumer: "worker",
	})
	if err != nil || len(found) > 0 {
		t.Errorf("doctor found %v, %v, want nothing", found, err)
	}
}

// violation does what the server is to refuse, and returns what it says.
func violation(nc *nats.Conn, act string) error {
	verb, subject, _ := strings.Cut(act, " ")
	var err error
	if verb == "publish" {
		err = nc.PublishRequest(subject, nc.NewRespInbox(), nil)
	} else {
		_, err = nc.SubscribeSync(subject)
	}
	return errors.Join(err, nc.Flush(), nc.LastError())
}

func TestPermissions_RefuseWhatIsNotOnesPart(t *testing.T) {
	g := newGuarded(t)
	all := []string{
		"publish $JS.API.STREAM.DELETE.JOBS", "publish $JS.API.STREAM.PURGE.JOBS", "publish $JS.API.STREAM.UPDATE.JOBS",
		"publish $JS.API.STREAM.CREATE.OTHER", "publish $JS.API.STREAM.MSG.GET.JOBS", "publish $JS.API.STREAM.MSG.DELETE.JOBS",
		"publish $JS.API.STREAM.SNAPSHOT.JOBS", "publish $JS.API.CONSUMER.DELETE.JOBS.worker", "publish $JS.API.CONSUMER.CREATE.JOBS.mine",
		"publish $JS.API.DIRECT.GET.JOBS", "publish $SYS.REQ.SERVER.PING", "publish payroll.run",
		"subscribe >", "subscribe jobs.>", "subscribe _INBOX.>", "subscribe $JS.API.>",
	}
	for user, more := range map[string][]string{
		"relay": {
			"publish $JS.API.CONSUMER.MSG.NEXT.JOBS.worker", "publish $JS.ACK.JOBS.worker.1.1.1.1.0", "publish _INBOX_worker.x",
			"subscribe _INBOX_worker.>", "subscribe _INBOX_operator.>",
		},
		"worker": {
			"publish jobs.forged", "publish $JS.API.STREAM.INFO.JOBS", "publish $JS.API.CONSUMER.MSG.NEXT.JOBS.other",
			"publish $JS.ACK.JOBS.other.1.1.1.1.0", "publish _INBOX_relay.x", "subscribe _INBOX_relay.>", "subscribe $JS.EVENT.ADVISORY.>",
		},
		"operator": {
			"publish jobs.forged", "publish $JS.API.CONSUMER.MSG.NEXT.JOBS.worker", "publish $JS.ACK.JOBS.worker.1.1.1.1.0",
			"subscribe _INBOX_relay.>", "subscribe _INBOX_worker.>",
		},
	} {
		for _, act := range append(more, all...) {
			t.Run(fmt.Sprint(user, " ", act), func(t *testing.T) {
				if err := violation(g.dial(user, user), act); !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("%s may %s: %v", user, act, err)
				}
			})
		}
	}
	for _, act := range all[:len(all)-6] {
		if err := violation(g.dial("setup", "setup"), act); err != nil {
			t.Errorf("setup may not %s: %v", act, err)
		}
	}
}
