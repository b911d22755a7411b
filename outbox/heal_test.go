package outbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/outbox"
)

// distinct counts the messages of the stream by their own ID.
func (l *lab) distinct() map[string]int {
	l.t.Helper()
	ids := map[string]int{}
	for _, m := range l.stored() {
		id := m.Headers().Get("Jetbox-Message-Id")
		if id == "" {
			id = m.Headers().Get("Nats-Msg-Id")
		}
		ids[id]++
	}
	return ids
}

// holdsAgain waits until the stream holds n different messages.
func (l *lab) holdsAgain(n int) {
	l.t.Helper()
	testenv.Eventually(l.t, "the lost messages to be in the stream again", func() bool {
		s, err := l.js.Stream(l.t.Context(), l.stream.Name)
		return err == nil && int(s.CachedInfo().State.Msgs) >= n && len(l.distinct()) == n
	})
}

// Who redrives has to know it, and may not ask NATS.
func TestRelay_NotesForHowLongTheBrokerRemembersIDs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	l.insert(0, 1)
	l.waitCaughtUp() // it has made the stream
	for _, want := range []time.Duration{7 * time.Minute, time.Minute} {
		l.stream.Duplicates = want
		if _, err := l.js.UpdateStream(t.Context(), l.stream); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "the relay to note the window", func() bool {
			return ask[time.Duration](l, `SELECT duplicate_window FROM jetbox.relay_lease`) == want
		})
	}
}

func TestRelay_PublishesAgainWhatABrokerLostWithItsDisk(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, store, older string){
		"its store was restored from an older copy": func(t *testing.T, store, older string) { copyDir(t, older, store) },
		"its store is gone":                         func(*testing.T, string, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := testenv.OwnNATS(t)
			l := newLabOn(t, own.URL())
			stop := l.relay()
			l.insert(0, 10)
			l.waitCaughtUp()
			stop()
			if err := own.Stop(); err != nil {
				t.Fatal(err)
			}
			older := filepath.Join(t.TempDir(), "older")
			copyDir(t, own.StoreDir(), older)
			if err := own.Start(); err != nil {
				t.Fatal(err)
			}
			l.relay()
			l.insert(10, 10)
			l.waitCaughtUp()
			if err := own.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(own.StoreDir()); err != nil {
				t.Fatal(err)
			}
			lose(t, own.StoreDir(), older)
			if err := own.Start(); err != nil {
				t.Fatal(err)
			}
			l.holdsAgain(20)
			l.insert(20, 5)
			l.holdsAgain(25)
		})
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

func TestRelay_PublishesAgainWhatADeletedStreamHeld(t *testing.T) {
	t.Parallel()
	for name, recreate := range map[string]bool{"and nobody made it again": false, "and it was made again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.relay()
			l.insert(0, 10)
			l.waitCaughtUp()
			if err := l.js.DeleteStream(t.Context(), l.stream.Name); err != nil {
				t.Fatal(err)
			}
			if recreate {
				if _, err := l.js.CreateStream(t.Context(), l.stream); err != nil {
					t.Fatal(err)
				}
			}
			l.holdsAgain(10)
		})
	}
}

// What no stream took is in one now.
func TestReplay_TakesBackTheLettersOfWhatItPublishes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	narrow := l.stream
	narrow.Subjects = []string{l.prefix + ".a"}
	stop := l.relay(func(c *outbox.RelayConfig) { c.Streams = []jetstream.StreamConfig{narrow} })
	l.exec(`INSERT INTO jetbox.outbox (subject, payload) VALUES ($1, '1'), ($2, '2')`, l.prefix+".b", l.prefix+"-elsewhere")
	l.waitCaughtUp()
	stop()
	if n := ask[int](l, `SELECT count(*) FROM jetbox.dead_letter`); n != 2 {
		t.Fatalf("%d letters, want 2", n)
	}
	l.relay()
	l.replay(outbox.Replay{AfterBatch: 0})
	testenv.Eventually(t, "the replay", func() bool {
		return ask[string](l, `SELECT string_agg(state, ' ' ORDER BY o.id) FROM jetbox.outbox_status JOIN jetbox.outbox o USING (message_id)`) == "sent dead"
	})
	if got := ask[string](l, `SELECT string_agg(subject, ' ') FROM jetbox.dead_letter`); got != l.prefix+"-elsewhere" {
		t.Errorf("letters are about %s, want the one that no stream takes", got)
	}
}

func (l *lab) replay(r outbox.Replay) {
	l.t.Helper()
	err := pgx.BeginFunc(l.t.Context(), l.db, func(tx pgx.Tx) error { return outbox.StartReplay(l.t.Context(), tx, r) })
	if err != nil {
		l.t.Fatal(err)
	}
}

// A poll of more rows than a batch holds leaves an open window in the ledger.
func TestRelay_ReplaysFromTheMiddleOfAWindowAllThatCameLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	l.insert(0, 600)
	l.waitCaughtUp()
	l.insert(600, 10)
	l.waitCaughtUp()
	half := ask[int64](l, `SELECT min(seq) FROM jetbox.relay_batch WHERE prev_snap IS NOT NULL`)
	rest := 610 - ask[int](l, `SELECT n FROM jetbox.relay_batch WHERE seq = $1`, half)
	l.replay(outbox.Replay{AfterBatch: half})
	testenv.Eventually(t, "the replay", func() bool {
		s, err := l.js.Stream(t.Context(), l.stream.Name)
		return err == nil && int(s.CachedInfo().State.Msgs) == 610+rest
	})
}

func TestRelay_ReplaysPastTheDuplicateWindowAndOnlyOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	l.insert(0, 10)
	l.waitCaughtUp()
	l.insert(10, 10)
	l.waitCaughtUp()
	second := ask[int64](l, `SELECT max(seq) FROM jetbox.relay_batch`)
	conn, err := pgx.ConnectConfig(t.Context(), l.db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())

	plan, err := outbox.PlanReplay(t.Context(), conn, outbox.ReplayFrom{Batch: second})
	if err != nil || plan.Messages != 10 {
		t.Fatalf("PlanReplay = %+v, %v, want 10 messages", plan, err)
	}
	if got := len(l.stored()); got != 20 {
		t.Fatalf("a plan published something: %d messages", got)
	}
	l.replay(plan)
	testenv.Eventually(t, "the replay", func() bool { return len(l.stored()) == 30 })
	l.insert(20, 1)
	l.waitCaughtUp()
	want := slices.Concat(numbers(0, 20), numbers(10, 10), numbers(20, 1))
	if got := l.bodies(); !slices.Equal(got, want) {
		t.Errorf("stored %q, want the second batch twice", got)
	}
	last := l.stored()[30].Headers()
	if id := last.Get("Nats-Msg-Id"); strings.Contains(id, "#") || last.Get("Jetbox-Message-Id") != "" {
		t.Errorf("a new message after the replay carries the ID %q", id)
	}
}

func TestPlanReplay_TakesATimeAnIDOrABatch(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay()
	for i := range 3 {
		l.insert(i*10, 10)
		l.waitCaughtUp()
	}
	conn, err := pgx.ConnectConfig(t.Context(), l.db.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for name, tt := range map[string]struct {
		from outbox.ReplayFrom
		want int64
	}{
		"everything by time": {outbox.ReplayFrom{Since: time.Now().Add(-time.Hour)}, 30},
		"nothing by time":    {outbox.ReplayFrom{Since: time.Now().Add(time.Hour)}, 0},
		"by id":              {outbox.ReplayFrom{FromID: ask[int64](l, `SELECT min(id) + 15 FROM jetbox.outbox`)}, 20},
		"by batch":           {outbox.ReplayFrom{Batch: ask[int64](l, `SELECT max(seq) FROM jetbox.relay_batch`)}, 10},
	} {
		got, err := outbox.PlanReplay(t.Context(), conn, tt.from)
		if err != nil || got.Messages != tt.want {
			t.Errorf("%s: %+v, %v, want %d messages", name, got, err, tt.want)
		}
	}
	if _, err := outbox.PlanReplay(t.Context(), conn, outbox.ReplayFrom{}); !errors.Is(err, outbox.ErrReplayFrom) {
		t.Errorf("no place: %v", err)
	}
}

func TestRelay_ConfirmsWithTheInboxWhatTheStreamDropped(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		grace time.Duration
		lose  func(*lab, jetstream.Stream) error
	}{
		"deleted, after the grace time":            {time.Second, (*lab).deleteAll},
		"purged, at once by the server's advisory": {time.Hour, func(l *lab, s jetstream.Stream) error { return s.Purge(l.t.Context()) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.relay(func(c *outbox.RelayConfig) { c.ConfirmConsumer, c.ConfirmGrace = "w", tt.grace })
			l.insert(0, 10)
			l.waitCaughtUp()
			c, s := l.processFour()
			if err := tt.lose(l, s); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the six that were lost to be processed", func() bool {
				l.process(c, 10)
				return ask[int](l, `SELECT count(*) FROM jetbox.inbox`) == 10
			})
			if rewinds := ask[int](l, `SELECT max(generation) FROM jetbox.relay_batch`); rewinds != 1 {
				t.Errorf("sent back %d times, want once", rewinds)
			}
		})
	}
}

// processFour makes the consumer w, plays its worker for four messages, and returns
// it with the stream.
func (l *lab) processFour() (jetstream.Consumer, jetstream.Stream) {
	l.t.Helper()
	c, err := l.js.CreateConsumer(l.t.Context(), l.stream.Name, jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		l.t.Fatal(err)
	}
	l.process(c, 4)
	s, err := l.js.Stream(l.t.Context(), l.stream.Name)
	if err != nil {
		l.t.Fatal(err)
	}
	return c, s
}

// A consumer under load is never idle: what lies below its ack floor is compared.
func TestRelay_ConfirmsWhileTheConsumerHasMuchLeft(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.relay(func(c *outbox.RelayConfig) { c.ConfirmConsumer, c.ConfirmGrace = "w", time.Second })
	l.insert(0, 7)
	l.waitCaughtUp()
	l.insert(7, 3) // these stay
	l.waitCaughtUp()
	c, s := l.processFour()
	if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(8)); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the relay to be sent back", func() bool {
		return ask[int](l, `SELECT max(generation) FROM jetbox.relay_batch`) == 1
	})
	testenv.Eventually(t, "all to be processed", func() bool {
		l.process(c, 10)
		return ask[int](l, `SELECT count(*) FROM jetbox.inbox`) == 10
	})
}

// deleteAll takes every message from the stream, which no advisory that the relay
// reads tells.
func (l *lab) deleteAll(s jetstream.Stream) error {
	state := s.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		if err := s.DeleteMsg(l.t.Context(), seq); err != nil {
			return err
		}
	}
	return nil
}

// process plays a worker: it notes up to n messages in the inbox and acks them.
func (l *lab) process(c jetstream.Consumer, n int) {
	l.t.Helper()
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		l.t.Fatal(err)
	}
	for m := range batch.Messages() {
		id, _, _ := strings.Cut(m.Headers().Get("Nats-Msg-Id"), "#")
		l.exec(`INSERT INTO jetbox.inbox (message_id, consumer, day, subject)
			VALUES ($1, 'w', (now() AT TIME ZONE 'UTC')::date, '') ON CONFLICT DO NOTHING`, id)
		if err := m.DoubleAck(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
}
