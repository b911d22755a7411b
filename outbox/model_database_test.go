package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

// modelDB is Postgres as far as a relay can see it: transactions that draw ids
// and commit in any order, snapshots, the ledger and the lease.
type modelDB struct {
	querier // the rest, which the model does not answer

	t *rapid.T
	// meanwhile lets others act while a statement is on its way.
	meanwhile func()
	// lostReply decides whether the answer to a statement that was done gets lost.
	lostReply func() bool

	started, ended uint64 // the newest xid that was given out, and that ended
	open           map[uint64]*modelTx
	rows           []modelRow // by id; those that were rolled back are gone
	lastID         int64

	ledger []modelBatch
	lease  struct {
		epoch   int64
		expires time.Time
	}
}

type modelTx struct{ keys map[string]bool }

type modelRow struct {
	row
	xid       uint64
	committed bool
}

// modelBatch is a row of the ledger.
type modelBatch struct {
	seq, epoch int64
	generation int
	replay     bool
	n          int
	isRewind   bool
	rewoundTo  int64
	snap, prev string
	pos        int64
	streams    string
}

// bodySize fills a batch with two messages: what bounds the real ones is bytes.
const bodySize = batchBytes * 2 / 3

var body = make([]byte, bodySize)

// insert adds a row to an open transaction. Whoever writes for a key locks it, as
// an application does by the row it is about: that is what orders its messages.
func (db *modelDB) insert(xid uint64, key string, skip int64) {
	for other, tx := range db.open {
		if other != xid && tx.keys[key] {
			return // would wait
		}
	}
	db.open[xid].keys[key] = true
	db.lastID += 1 + skip
	db.rows = append(db.rows, modelRow{xid: xid, row: row{
		id: db.lastID, messageID: uuid.UUID{8: byte(db.lastID >> 24), 9: byte(db.lastID >> 16), 10: byte(db.lastID >> 8), 11: byte(db.lastID)},
		subject: "jobs.x", key: key, body: body,
	}})
}

func (db *modelDB) begin() uint64 {
	db.started++
	db.open[db.started] = &modelTx{keys: map[string]bool{}}
	return db.started
}

func (db *modelDB) end(xid uint64, commit bool) {
	delete(db.open, xid)
	db.ended = max(db.ended, xid)
	kept := db.rows[:0]
	for _, r := range db.rows {
		if r.xid == xid {
			r.committed = true
		}
		if r.xid != xid || commit {
			kept = append(kept, r)
		}
	}
	db.rows = kept
}

func (db *modelDB) running() []uint64 {
	var list []uint64
	for xid := range db.open {
		list = append(list, xid)
	}
	slices.Sort(list)
	return list
}

// snapshot is pg_current_snapshot(): xmax is one beyond the newest that ended, so
// a running transaction may lie beyond it.
func (db *modelDB) snapshot() snapshot {
	xmax := db.ended + 1
	xmin := xmax
	var xip []string
	for _, xid := range db.running() {
		if xid < xmax {
			xmin = min(xmin, xid)
			xip = append(xip, fmt.Sprint(xid))
		}
	}
	s, err := parseSnapshot(fmt.Sprintf("%d:%d:%s", xmin, xmax, strings.Join(xip, ",")))
	if err != nil {
		db.t.Fatal(err)
	}
	return s
}

// sees is pg_visible_in_snapshot, which reads the text.
func sees(snap string, xid uint64) bool {
	xmin, rest, _ := strings.Cut(snap, ":")
	xmax, xip, _ := strings.Cut(rest, ":")
	number := fmt.Sprint(xid)
	less := func(a, b string) bool { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) < 0 }
	return less(number, xmin) || (less(number, xmax) && !slices.Contains(strings.Split(xip, ","), number))
}

// The limits of a model's poll and chunk, small enough to be met all the time.
const (
	modelPoll  = 5
	modelChunk = 3
)

// since is the condition of pollSQL and firstSQL.
func (r *modelRow) since(s snapshot) bool {
	return r.committed && (r.xid >= s.xmax || slices.Contains(s.xip, r.xid))
}

func (db *modelDB) poll(_ context.Context, since snapshot) (f polled, err error) {
	db.meanwhile()
	f.snap = db.snapshot()
	for _, r := range db.rows {
		if r.since(since) {
			f.rows = append(f.rows, r.row)
		}
	}
	slices.Reverse(f.rows) // any order will do
	if f.overflow = len(f.rows) > modelPoll; f.overflow {
		f.rows = f.rows[:modelPoll]
	}
	return f, nil
}

func (db *modelDB) first(_ context.Context, since snapshot) (int64, error) {
	db.meanwhile()
	for _, r := range db.rows {
		if r.since(since) {
			return r.id, nil
		}
	}
	return 0, nil
}

func (db *modelDB) startWalk(context.Context) (int64, error) {
	db.meanwhile()
	return db.lastID, nil
}

func (db *modelDB) endWalk(context.Context) error { return nil }

func (db *modelDB) chunk(_ context.Context, p position, to int64, each func(row) error) (n int, cut bool, err error) {
	db.meanwhile()
	if lapOf(p.pos+1) != lapOf(to) {
		db.t.Fatalf("a chunk from %d to %d is in two children", p.pos+1, to)
	}
	var found []row
	for _, r := range db.rows {
		if r.committed && r.id > p.pos && r.id <= to && sees(p.snap.text, r.xid) && !sees(p.prev.text, r.xid) {
			found = append(found, r.row)
		}
	}
	found = found[:min(len(found), modelChunk)]
	for _, r := range found {
		if err := each(r); err != nil {
			return n, false, err
		}
		n++
	}
	return n, n == modelChunk, nil
}

var errReplyLost = errors.New("the connection to postgres was lost")

// Exec does what appendSQL and rewindSQL do.
func (db *modelDB) Exec(_ context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	db.meanwhile()
	a := args[0].(pgx.StrictNamedArgs)
	switch {
	case sql == appendSQL && a["epoch"] != db.lease.epoch:
		return pgconn.NewCommandTag("INSERT 0 0"), nil
	case sql == appendSQL && slices.ContainsFunc(db.ledger, func(b modelBatch) bool { return b.seq == a["seq"] }):
		return tag, &pgconn.PgError{Code: "23505"}
	case sql == appendSQL:
		db.ledger = append(db.ledger, appended(a))
	case sql == rewindSQL:
		db.rewind(a)
	case sql == takeBackSQL: // it has no letters
	default:
		db.t.Fatalf("the model does not know %s", sql)
	}
	if db.lostReply() {
		return tag, errReplyLost
	}
	return pgconn.NewCommandTag("INSERT 0 1"), nil
}

func appended(a pgx.StrictNamedArgs) modelBatch {
	b := modelBatch{
		seq: a["seq"].(int64), epoch: a["epoch"].(int64), generation: a["generation"].(int),
		replay: a["replay"].(bool), n: a["n"].(int), snap: a["snap"].(string), streams: a["streams"].(string),
	}
	if a["prev"] != nil {
		b.prev, b.pos = a["prev"].(string), a["pos"].(int64)
	}
	return b
}

func (db *modelDB) rewind(a pgx.StrictNamedArgs) {
	if len(db.ledger) == 0 {
		return
	}
	newest, target := db.newest(), modelBatch{snap: genesis.text}
	seq := db.furthestBack(a["target"].(int64))
	if seq > 0 {
		target = db.ledger[seq-1]
	}
	target.rewoundTo, target.seq, target.epoch, target.generation = seq, newest.seq+1, newest.epoch, newest.generation+1
	target.isRewind, target.replay, target.n, target.streams = true, true, 0, a["streams"].(string)
	db.ledger = append(db.ledger, target)
}

// furthestBack is furtherBackSQL.
func (db *modelDB) furthestBack(seq int64) int64 {
	for _, b := range slices.Backward(db.ledger) {
		if b.isRewind && b.seq > seq && b.rewoundTo < seq {
			return db.furthestBack(b.rewoundTo)
		}
	}
	return seq
}

func (db *modelDB) newest() modelBatch { return db.ledger[len(db.ledger)-1] }

// answer is the one row of a query, or none.
type answer []any

func (a answer) Scan(into ...any) error {
	if a == nil {
		return pgx.ErrNoRows
	}
	for i, v := range a {
		reflect.ValueOf(into[i]).Elem().Set(reflect.ValueOf(v))
	}
	return nil
}
