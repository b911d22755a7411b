package integration_test

import (
	"context"
	"encoding/json"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/process"
	"github.com/jetboxhq/jetbox/internal/proxy"
)

// leadingSQL counts relays that have come to polling.
const leadingSQL = `SELECT count(*) FROM pg_stat_activity
	WHERE datname = current_database() AND application_name = 'jetbox relay reader' AND query ~ 'xid = ANY|advisory'`

// terminateSQL ends the sessions that a killed process left behind in the
// middle of a statement.
const terminateSQL = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
	WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'`

// blockedSQL counts sessions that wait for a lock of ours.
const blockedSQL = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`

// hold runs sql, which takes a lock, in a transaction that stays open until the
// returned function ends it.
func (l *lab) hold(sql string) (release func()) {
	l.t.Helper()
	tx, err := l.db.Begin(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), sql); err != nil {
		l.t.Fatal(err)
	}
	release = func() { _ = tx.Rollback(context.Background()) } // a second call finds it closed
	l.t.Cleanup(release)
	return release
}

// many is how many messages a relay has in hand when it is killed.
const many = 500

func TestRelay_LosesNothingWhenKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(*lab){
		"after the poll, before the publish": killBeforePublish,
		"after the publish, before the ack":  killBeforeAck,
		"after the ack, before the record":   killBeforeRecord,
		"after the record, before its reply": killBeforeReply,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			crash(l)
			l.insert(many, 10)
			l.start("relay", "relay-again", testenv.NATSURL(t))
			l.start("worker", "worker", testenv.NATSURL(t))
			l.handled(many + 10)
		})
	}
}

// leading is a relay behind a link, that has come to polling.
func (l *lab) leading() (*process.Process, *proxy.Proxy) {
	l.t.Helper()
	link, broker := l.proxy()
	relay := l.start("relay", "relay", broker)
	l.eventually(1, leadingSQL)
	return relay, link
}

func killBeforePublish(l *lab) {
	relay, link := l.leading()
	link.Hold(proxy.ToServer)
	l.insert(0, many)
	l.eventually(1, leadingSQL+` AND state = 'idle' AND query_start > (SELECT min(created_at) FROM jetbox.outbox)`)
	l.kill(relay, link)
	if got := l.waiting(); got != 0 {
		l.t.Errorf("%d messages were published through a held link", got)
	}
}

func killBeforeAck(l *lab) {
	relay, link := l.leading()
	link.Hold(proxy.ToClient)
	l.insert(0, many)
	// The relay sends a window of messages, and hears of none.
	testenv.Eventually(l.t, "messages in the stream", func() bool { return l.waiting() > 0 })
	l.kill(relay, link)
}

func killBeforeRecord(l *lab) {
	relay, link := l.leading()
	release := l.hold(lockLedgerSQL)
	l.insert(0, many)
	l.eventually(1, blockedSQL)
	l.kill(relay, link)
	l.eventually(0, terminateSQL)
	release()
	if got := l.count(batchesSQL); got != 0 {
		l.t.Errorf("%d batches were recorded", got)
	}
}

func killBeforeReply(l *lab) {
	relay, link := l.leading()
	l.insert(0, 1) // so that the statement is prepared
	l.eventually(1, batchesSQL)
	release := l.hold(lockLedgerSQL)
	l.insert(1, many-1)
	l.eventually(1, blockedSQL)
	l.kill(relay, link)
	release() // the backend does not know yet that nobody is listening
	l.eventually(2, batchesSQL)
}

const (
	lockLedgerSQL = `LOCK TABLE jetbox.relay_batch IN EXCLUSIVE MODE`
	batchesSQL    = `SELECT count(*) FROM jetbox.relay_batch`
)

// blockHandlerSQL makes the handler wait for a lock, in the middle of its transaction.
const blockHandlerSQL = `
CREATE FUNCTION app.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN NULL;
END $$;
CREATE TRIGGER wait AFTER INSERT ON app.effect FOR EACH STATEMENT EXECUTE FUNCTION app.wait()`

// blockCommitSQL makes COMMIT itself wait: everything is done but that.
const blockCommitSQL = `
CREATE FUNCTION app.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(1);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON app.effect DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION app.wait()`

const holdWorkSQL = `SELECT pg_advisory_xact_lock(1)`

func TestWorker_RunsEachMessageOnceWhenKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	const n = 200
	inTransaction := func(block string, settle func(l *lab, release func())) func(*lab) {
		return func(l *lab) {
			l.exec(block)
			release := l.hold(holdWorkSQL)
			link, broker := l.proxy()
			worker := l.start("worker", "worker", broker)
			l.insert(0, n)
			testenv.Eventually(l.t, "the handler at work", func() bool { return l.count(blockedSQL) > 0 })
			l.kill(worker, link)
			settle(l, release)
		}
	}
	rolledBack := func(l *lab, release func()) {
		l.eventually(0, terminateSQL)
		release()
		if got := l.count(`SELECT count(*) FROM app.effect`); got != 0 {
			l.t.Errorf("%d effects of transactions that were killed", got)
		}
	}
	committed := func(l *lab, release func()) {
		release() // the backend does not know yet that nobody is listening
		l.eventually(0, blockedSQL)
	}
	for name, crash := range map[string]func(*lab){
		"in the handler":                 inTransaction(blockHandlerSQL, rolledBack),
		"in COMMIT, which then fails":    inTransaction(blockCommitSQL, rolledBack),
		"in COMMIT, whose reply is lost": inTransaction(blockCommitSQL, committed),
		"after the commit, before the ack": func(l *lab) {
			link, broker := l.proxy()
			worker := l.start("worker", "worker", broker)
			l.insert(0, 1)
			l.eventually(1, `SELECT count(*) FROM app.effect`)
			testenv.Eventually(l.t, "the first ack", func() bool { return l.waiting() == 0 })
			link.Hold(proxy.ToServer)
			l.insert(1, n-1)
			l.eventually(n, `SELECT count(*) FROM app.effect`)
			l.kill(worker, link)
			if l.waiting() == 0 {
				l.t.Error("messages were acked through a held link")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.start("relay", "relay", testenv.NATSURL(t))
			crash(l)
			l.start("worker", "worker-again", testenv.NATSURL(t))
			l.handled(n)
		})
	}
}

func TestRelay_ThatWasFrozenIsFencedWhenItThaws(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	frozen := l.start("relay", "frozen", testenv.NATSURL(t))
	l.eventually(1, leadingSQL)
	standby := l.start("relay", "standby", testenv.NATSURL(t))
	l.insert(0, 100)
	l.eventually(0, `SELECT count(*) FROM jetbox.outbox_status WHERE state <> 'sent'`)

	// Frozen with rows in hand: its ledger row waits for our lock.
	release := l.hold(lockLedgerSQL)
	l.insert(100, 100)
	l.eventually(1, blockedSQL)
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = frozen.Signal(syscall.SIGCONT) }) // or Stop could not end it
	l.count(terminateSQL)
	start := time.Now()
	release()
	l.insert(200, 100)
	l.eventually(2, `SELECT epoch FROM jetbox.relay_lease`)
	t.Logf("standby took over after %v", time.Since(start).Round(10*time.Millisecond))
	l.eventually(0, `SELECT count(*) FROM jetbox.outbox_status WHERE state <> 'sent'`)

	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.insert(300, 100)
	l.start("worker", "worker", testenv.NATSURL(t))
	l.handled(400)
	if back := l.count(`SELECT count(*) FROM (SELECT epoch, lag(epoch) OVER (ORDER BY seq) AS before FROM jetbox.relay_batch) b WHERE epoch < before`); back != 0 {
		t.Errorf("%d ledger rows of a relay that had lost its lease", back)
	}
	if err := standby.Stop(); err != nil {
		t.Fatal(err)
	}
	l.insert(400, 10)
	l.handled(410) // by the thawed one, which stands by
}

// The order per key holds from the outbox into the stream whatever is killed.
func TestRelay_KeepsTheOrderPerKeyWhileItIsKilled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	link, broker := l.proxy()
	relay := l.start("relay", "relay", broker)
	l.eventually(1, leadingSQL)
	for round := range 4 {
		l.insert(round*1000, 1000)
		time.Sleep(time.Duration(round*7) * time.Millisecond) // die at another step each round
		l.kill(relay, link)
		if err := relay.Start(); err != nil {
			t.Fatal(err)
		}
		l.eventually(0, `SELECT count(*) FROM jetbox.outbox_status WHERE state <> 'sent'`)
	}
	got := l.numbersByKey()
	for key, ns := range got {
		if !slices.IsSorted(ns) {
			t.Errorf("key %s is out of order in the stream", key)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d keys in the stream, want 7", len(got))
	}
}

// numbersByKey reads the stream without taking anything from it.
func (l *lab) numbersByKey() map[string][]int {
	l.t.Helper()
	s, err := l.js.Stream(l.t.Context(), l.stream)
	if err != nil {
		l.t.Fatal(err)
	}
	state := s.CachedInfo().State
	byKey := map[string][]int{}
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(l.t.Context(), seq)
		if err != nil {
			l.t.Fatal(err)
		}
		key := m.Header.Get("Jetbox-Key")
		var body struct{ N int }
		if err := json.Unmarshal(m.Data, &body); err != nil {
			l.t.Fatal(err)
		}
		byKey[key] = append(byKey[key], body.N)
	}
	return byKey
}
