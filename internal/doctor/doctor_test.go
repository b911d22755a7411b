package doctor_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
	"github.com/jetboxhq/jetbox/internal/streams"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func connect(t *testing.T, cfg *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// checks names what was found, but for what testenv's servers are: without
// durability, for speed, and without another role than their superuser.
func checks(found []doctor.Finding) []string {
	var names []string
	for _, f := range found {
		if f.Check != "fsync" && f.Check != "superuser" {
			names = append(names, f.Check)
		}
	}
	return names
}

func examine(t *testing.T, db *pgx.ConnConfig, cfg doctor.Config) []doctor.Finding {
	t.Helper()
	found, err := doctor.Postgres(t.Context(), connect(t, db), cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPostgres_IsQuietAboutAGoodDatabase(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	if got := checks(examine(t, db, doctor.Config{})); len(got) > 0 {
		t.Errorf("found %v, want nothing", got)
	}
}

// Each is one planted mistake; the doctor finds it, and nothing else.
func TestPostgres_FindsEachMistake(t *testing.T) {
	t.Parallel()
	for want, sql := range map[string]string{
		"sequence_cache":                      `ALTER SEQUENCE jetbox.outbox_id_seq CACHE 20`,
		"trigger":                             `ALTER TABLE jetbox.outbox DISABLE TRIGGER check_message`,
		"index":                               `DROP INDEX jetbox.outbox_3_xid`,
		"relay_paused":                        `UPDATE jetbox.relay_lease SET paused_until = now() + interval '1 hour'`,
		"inbox_partitions":                    `DO $$ DECLARE w date; BEGIN FOR w IN SELECT * FROM jetbox.inbox_weeks() x WHERE x > now() - interval '7 days' LOOP EXECUTE 'DROP TABLE jetbox.inbox_' || to_char(w, 'YYYYMMDD'); END LOOP; END $$`,
		"synchronous_commit":                  `synchronous_commit = off`,
		"default_transaction_read_only":       `default_transaction_read_only = on`,
		"default_transaction_isolation":       `default_transaction_isolation = serializable`,
		"statement_timeout":                   `statement_timeout = '1s'`,
		"idle_in_transaction_session_timeout": `idle_in_transaction_session_timeout = '5s'`,
		"lock_timeout":                        `lock_timeout = '50ms'`,
		"session_replication_role":            `session_replication_role = replica`,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			db := testenv.Database(t).Config().ConnConfig
			if strings.Contains(sql, " = ") && !strings.Contains(sql, "jetbox.") {
				sql = "ALTER DATABASE " + db.Database + " SET " + sql
			}
			execute(t, connect(t, db), sql)
			found := examine(t, db, doctor.Config{})
			if got := checks(found); len(got) != 1 || got[0] != want {
				t.Fatalf("found %v, want %s", got, want)
			}
			for _, f := range found {
				if f.Found == "" || f.Fix == "" || doctor.ExitCode(found) == 0 {
					t.Errorf("finding = %+v, want what is wrong and its fix", f)
				}
			}
		})
	}
}

func TestPostgres_WarnsOfASuperuserWhereOthersAreToo(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	for sql, want := range map[string]bool{``: true, `SET ROLE jetbox_relay`: true, `SET SESSION AUTHORIZATION jetbox_relay`: false} {
		conn := connect(t, db)
		execute(t, conn, sql)
		for _, private := range []bool{false, true} {
			found, err := doctor.Postgres(t.Context(), conn, doctor.Config{Private: private}, false)
			got := slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Check == "superuser" && f.Level == doctor.Warning })
			if err != nil || got != (want && !private) {
				t.Errorf("%q, private %t: superuser found is %t, %v, want %t", sql, private, got, err, want && !private)
			}
		}
	}
}

// elsewhere is a connection that seems to come from another machine.
type elsewhere struct {
	net.Conn
	ip string
}

func (e elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(e.ip), Port: 5432} }

func TestPostgres_WarnsOfAPlainConnectionToAnotherMachine(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	for ip, want := range map[string]string{"192.0.2.1": "tls", "10.0.0.1": "tls", "2001:db8::1": "tls", "127.0.0.2": "", "::1": ""} {
		cfg := db.Copy()
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return elsewhere{conn, ip}, err
		}
		if got := strings.Join(checks(examine(t, cfg, doctor.Config{})), " "); got != want {
			t.Errorf("found %q in a plain connection to %s, want %q", got, ip, want)
		}
	}
}

func TestPostgres_FindsWhatARoleMayNotDo(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	conn := connect(t, db)
	execute(t, conn, `GRANT SELECT ON ALL TABLES IN SCHEMA jetbox TO jetbox_producer; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jetbox TO jetbox_producer; SET ROLE jetbox_producer`)
	found, err := doctor.Postgres(t.Context(), conn, doctor.Config{}, true)
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for _, f := range found {
		if f.Check == "privilege" && strings.HasPrefix(f.Fix, "GRANT ") {
			missing++
		}
	}
	if missing < 10 || doctor.ExitCode(found) != 2 {
		t.Errorf("found %d missing privileges, want each", missing)
	}
}

func TestPostgres_FindsOldTransactions(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	execute(t, connect(t, db), `BEGIN; SELECT 1`)
	prepared := connect(t, db)
	execute(t, prepared, `BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '`+db.Database+`'`)
	t.Cleanup(func() { _, _ = prepared.Exec(context.Background(), `ROLLBACK PREPARED '`+db.Database+`'`) })
	got := checks(examine(t, db, doctor.Config{OldTransaction: time.Microsecond}))
	if strings.Join(got, " ") != "old_transaction old_transaction" {
		t.Errorf("found %v, want both transactions", got)
	}
}

func TestPostgres_FindsClocksThatDiffer(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig
	for _, off := range []time.Duration{time.Minute, -time.Minute} {
		got := checks(examine(t, db, doctor.Config{Now: func() time.Time { return time.Now().Add(off) }}))
		if strings.Join(got, " ") != "clock_skew" {
			t.Errorf("found %v with a clock off by %s, want clock_skew", got, off)
		}
	}
}

// jets returns an installation's configuration on a server, as the relay makes it.
func jets(t *testing.T, url string) (*nats.Conn, jetstream.JetStream, doctor.Config) {
	t.Helper()
	nc := testenv.Dial(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js, doctor.Config{Streams: []jetstream.StreamConfig{streams.Default()}, Stream: "JOBS", Consumer: "worker"}
}

func TestNATS_IsQuietBeforeAndAfterTheFirstStart(t *testing.T) {
	t.Parallel()
	nc, js, cfg := jets(t, testenv.OwnNATS(t).URL())
	for range 2 {
		if found, err := doctor.NATS(t.Context(), nc, cfg); err != nil || len(found) > 0 {
			t.Errorf("found %v, %v, want nothing", found, err)
		}
		if err := streams.Ensure(t.Context(), js, cfg.Streams, false); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNATS_FindsEachMistake(t *testing.T) {
	t.Parallel()
	for want, plant := range map[string]func(*jetstream.StreamConfig, *jetstream.ConsumerConfig){
		"stream":           func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.Subjects = []string{"other.>"} },
		"duplicate_window": func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.Duplicates = time.Second },
		"memory_storage":   func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.Storage = jetstream.MemoryStorage },
		"max_msg_size":     func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.MaxMsgSize = 1000 },
		"stream_full":      func(s *jetstream.StreamConfig, _ *jetstream.ConsumerConfig) { s.MaxBytes = 100 },
		"consumer":         func(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 },
		"paused": func(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) {
			until := time.Now().Add(time.Hour)
			c.PauseUntil = &until
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			nc, js, cfg := jets(t, testenv.OwnNATS(t).URL())
			stream := streams.Default()
			consumer := jetstream.ConsumerConfig{Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1}
			plant(&stream, &consumer)
			if want != "stream" {
				cfg.Streams = []jetstream.StreamConfig{stream}
			}
			if _, err := js.CreateStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateConsumer(t.Context(), "JOBS", consumer); err != nil {
				t.Fatal(err)
			}
			if want == "stream_full" {
				if _, err := js.Publish(t.Context(), "jobs.a", make([]byte, 60)); err != nil {
					t.Fatal(err)
				}
			}
			found, err := doctor.NATS(t.Context(), nc, cfg)
			if err != nil || len(found) != 1 || found[0].Check != want || found[0].Fix == "" {
				t.Errorf("found %+v, %v, want %s with its fix", found, err, want)
			}
		})
	}
}

func TestNATS_FindsWhatTheServerLacks(t *testing.T) {
	t.Parallel()
	opts := &server.Options{Port: -1, MaxPayload: 1000, NoLog: true, NoSigs: true}
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	nc, _, cfg := jets(t, srv.ClientURL())
	found, err := doctor.NATS(t.Context(), nc, cfg)
	if err != nil || strings.Join(checks(found), " ") != "max_payload jetstream" || doctor.ExitCode(found) != 2 {
		t.Errorf("found %+v, %v, want max_payload and jetstream", found, err)
	}
}
