package outbox

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// world is a database with applications, a broker, and two relays, in which
// rapid decides what happens next, and time is a fake.
type world struct {
	t        *rapid.T
	m        *metrics
	db       *modelDB
	broker   *modelBroker
	relays   []*modelRelay
	calm     bool // nothing fails any more, and nobody comes in between
	nested   bool // somebody is in between
	troubles int
	owed     map[int64]int // outbox ids that a replay covers, and its generation
}

func newWorld(t *rapid.T, m *metrics) *world {
	w := &world{t: t, m: m, owed: map[int64]int{}}
	w.db = &modelDB{t: t, open: map[uint64]*modelTx{}, meanwhile: w.meanwhile, lostReply: func() bool { return w.happens("the reply is lost", 30) }}
	w.broker = &modelBroker{db: w.db, created: time.Now(), ever: map[int64]bool{}, tries: map[int64]int{}, failure: w.failure}
	w.relays = []*modelRelay{{w: w, name: "a"}, {w: w, name: "b"}}
	return w
}

// happens is true once in n times, while anything may go wrong.
func (w *world) happens(what string, n int) bool {
	return !w.calm && rapid.IntRange(0, n-1).Draw(w.t, what) == n-1
}

// meanwhile lets somebody else act while one waits for an answer.
func (w *world) meanwhile() {
	if w.nested || !w.happens("meanwhile", 4) {
		return
	}
	w.nested = true
	defer func() { w.nested = false }()
	switch rapid.IntRange(0, 3).Draw(w.t, "who") {
	case 0:
		w.pass(w.t)
	case 1:
		rapid.SampledFrom(w.relays).Draw(w.t, "other relay").step()
	default:
		w.application(w.t)
	}
}

func (w *world) delay() {
	if w.happens("delay", 2) {
		w.pass(w.t)
	}
}

func (w *world) pass(t *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{1, 10, 100, 1000, 3000, 6000}).Draw(t, "ms") * time.Millisecond)
}

// application is one statement of one of the applications.
func (w *world) application(t *rapid.T) {
	running := w.db.running()
	if len(running) == 0 || (len(running) < 4 && rapid.Bool().Draw(t, "begin")) {
		running = append(running, w.db.begin())
	}
	xid := rapid.SampledFrom(running).Draw(t, "xid")
	switch rapid.IntRange(0, 4).Draw(t, "statement") {
	case 0, 1, 2:
		skip := rapid.SampledFrom([]int64{0, 0, 0, 5, 30_000, 1 << 23}).Draw(t, "skip")
		w.db.insert(xid, rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "key"), skip)
	case 3:
		w.db.end(xid, true)
	case 4:
		w.db.end(xid, rapid.Bool().Draw(t, "commit"))
	}
}

// failure says how a publish of n messages goes.
func (w *world) failure(n int) (stored, reported int, fails bool) {
	if !w.happens("the publish fails", 8) {
		return n, n, false
	}
	stored = rapid.IntRange(0, n).Draw(w.t, "stored")
	return stored, rapid.IntRange(0, stored).Draw(w.t, "acked"), true
}

// lose takes back what the broker had acknowledged, as a restart of a server
// that had not synced does. Relays may still record what they published before.
func (w *world) lose(t *rapid.T) {
	w.broker.stored = w.broker.stored[:rapid.IntRange(0, len(w.broker.stored)).Draw(t, "kept")]
	for _, r := range w.relays {
		r.cutOff = true
	}
	w.troubles++
}

// replay is what an operator asks for: from a batch on, as replayTargetSQL finds
// the one before it.
func (w *world) replay(t *rapid.T) {
	if len(w.db.ledger) == 0 {
		return
	}
	from := rapid.Int64Range(1, w.db.newest().seq).Draw(t, "from")
	target := w.db.newest().seq
	for _, b := range slices.Backward(w.db.ledger) {
		if b.n > 0 && b.seq >= from {
			target = b.seq - 1
		}
	}
	err := rewind(context.Background(), w.db, target, map[string]streamState{})
	if err != nil && !errors.Is(err, errReplyLost) {
		t.Fatal(err)
	}
	w.troubles++
	if err == nil {
		w.owe()
	}
}

// owe notes what the rewind that was just recorded promises to publish again.
func (w *world) owe() {
	newest := w.db.newest()
	at, err := parsePosition(newest.snap, newest.prev, newest.pos)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range w.broker.stored {
		if r := w.broker.find(m.brokerID); !covers(at, r) {
			w.owed[m.row] = newest.generation
		}
	}
}

// covers reports whether a position says that a row is published.
func covers(at position, r modelRow) bool {
	return sees(at.snap.text, r.xid) && (!at.open || sees(at.prev.text, r.xid) || r.id <= at.pos)
}

// checkLedger compares what the newest row of the ledger claims with the truth.
func (w *world) checkLedger() {
	at, err := parsePosition(w.db.newest().snap, w.db.newest().prev, w.db.newest().pos)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range w.db.rows {
		if r.committed && covers(at, r) && !w.broker.ever[r.id] {
			w.t.Fatalf("the ledger says that row %d is published: it never was", r.id)
		}
	}
	if !slices.IsSortedFunc(w.db.ledger, func(a, b modelBatch) int { return int(a.epoch - b.epoch) }) {
		w.t.Fatalf("a relay has recorded after another took over: %v", w.db.ledger)
	}
}

// check is what holds at every moment.
func (w *world) check(t *rapid.T) {
	if err := w.broker.inverted(); err != nil {
		t.Fatal(err)
	}
	for id, n := range w.broker.tries {
		if n > 1 && w.troubles == 0 {
			t.Fatalf("row %d was published %d times, and nothing had failed", id, n)
		}
	}
}

// settle ends all trouble, lets one relay finish, and demands every message.
func (w *world) settle(t *rapid.T) {
	w.calm = true
	for _, xid := range w.db.running() {
		w.db.end(xid, true)
	}
	time.Sleep(2 * modelLease)
	r := w.relays[0]
	r.up = false
	for range 100 + 10*len(w.db.rows) {
		switch {
		case !r.up:
			time.Sleep(2 * modelLease)
			r.start()
		case len(r.published) > 0:
			r.record(context.Background())
		case len(r.read) > 0:
			r.renew()
			r.publish(context.Background())
		case !r.readOn(context.Background()):
			w.complete(t)
			return
		}
	}
	t.Fatal("the relay does not come to rest")
}

func (w *world) complete(t *rapid.T) {
	w.check(t)
	held := map[int64]int{}
	for _, m := range w.broker.stored {
		held[m.row] = max(held[m.row], 1+m.generation())
	}
	for _, r := range w.db.rows {
		if held[r.id] == 0 {
			t.Fatalf("row %d is missing in the stream", r.id)
		}
		if held[r.id] < 1+w.owed[r.id] {
			t.Fatalf("row %d was to be published again by a replay", r.id)
		}
	}
}

// quiet keeps rapid from asking for the test's deadline, which is real time.
type quiet struct{ rapid.TB }

// live lets things happen: mostly work, now and then trouble.
func (w *world) live(t *rapid.T) {
	for range rapid.IntRange(10, 150).Draw(t, "steps") {
		switch what := rapid.IntRange(0, 31).Draw(t, "what"); {
		case what < 13:
			w.application(t)
		case what < 24:
			w.relays[0].step()
		case what < 29:
			w.relays[1].step()
		case what < 30:
			w.pass(t)
		case what < 31:
			w.lose(t)
		default:
			w.replay(t)
		}
		w.check(t)
	}
}

// TestModel_LosesInventsAndInvertsNothing drives reader, window, batches,
// publisher, ledger, healer and lease through thousands of histories. A failure
// prints the shortest one that fails.
func TestModel_LosesInventsAndInvertsNothing(t *testing.T) {
	m := newMetrics()
	synctest.Test(t, func(t *testing.T) {
		for range 30 { // of 100 histories
			rapid.Check(quiet{t}, func(t *rapid.T) {
				w := newWorld(t, m)
				w.live(t)
				w.settle(t)
			})
		}
	})
}
