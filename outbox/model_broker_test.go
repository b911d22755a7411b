package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// QueryRow answers what ledger and healer ask.
func (db *modelDB) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	db.meanwhile()
	switch sql {
	case positionSQL:
		if len(db.ledger) == 0 {
			return answer(nil)
		}
		b := db.newest()
		return answer{b.seq, b.generation, b.replay, b.snap, b.prev, b.pos, false}
	case generationSQL:
		if len(db.ledger) == 0 {
			return answer(nil)
		}
		return answer{db.newest().generation}
	case recordedSQL:
		return db.recorded(args[0].(string), args[1].(int64))
	case lastHeldSQL:
		return db.lastHeld(args[0].(string), args[1].(string), args[2].(uint64))
	}
	db.t.Fatalf("the model does not know %s", sql)
	return nil
}

func (b modelBatch) stream(name string) *streamState {
	var states map[string]streamState
	if err := json.Unmarshal([]byte(b.streams), &states); err != nil {
		panic(err)
	}
	if s, ok := states[name]; ok {
		return &s
	}
	return nil
}

func (db *modelDB) recorded(name string, after int64) pgx.Row {
	newest := int64(0)
	if len(db.ledger) > 0 {
		newest = db.newest().seq
	}
	for _, b := range slices.Backward(db.ledger) {
		if s := b.stream(name); s != nil && b.seq > after {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err)
			}
			return answer{newest, text}
		}
	}
	return answer{newest, []byte(nil)}
}

func (db *modelDB) lastHeld(name, created string, last uint64) pgx.Row {
	for _, b := range slices.Backward(db.ledger) {
		if s := b.stream(name); s != nil && s.Created.Format(time.RFC3339Nano) == created && s.LastSeq <= last {
			return answer{b.seq}
		}
	}
	return answer{int64(0)}
}

// modelBroker is one stream: it drops what it remembers, may lose what it
// acknowledged, and may fail between any two messages.
type modelBroker struct {
	db      *modelDB
	created time.Time
	stored  []modelMsg
	ever    map[int64]bool // outbox ids that were stored at any time
	tries   map[int64]int  // how often each was published
	failure func(n int) (stored, reported int, fails bool)
}

type modelMsg struct {
	brokerID string
	row      int64
	key      string
}

func (m modelMsg) generation() int {
	_, text, _ := strings.Cut(m.brokerID, "#r")
	n, _ := strconv.Atoi(text) // none is 0
	return n
}

// modelStream is what the healer sees of the broker.
type modelStream struct {
	jetstream.Stream
	info jetstream.StreamInfo
}

func (s modelStream) CachedInfo() *jetstream.StreamInfo { return &s.info }

// modelJS finds the one stream.
type modelJS struct {
	jetstream.JetStream
	broker *modelBroker
}

func (js modelJS) Stream(context.Context, string) (jetstream.Stream, error) {
	js.broker.db.meanwhile()
	return modelStream{info: jetstream.StreamInfo{
		Created: js.broker.created, State: jetstream.StreamState{LastSeq: uint64(len(js.broker.stored))},
	}}, nil
}

// modelRoute is one relay's way to the broker.
type modelRoute struct {
	broker *modelBroker
	lease  *lease
}

func (modelRoute) String() string { return "model" }

var errAckLost = errors.New("no ack")

func (r modelRoute) publish(_ context.Context, msgs []*nats.Msg) (int, uint64, error) {
	if db := r.broker.db; r.lease.epoch != db.lease.epoch {
		db.t.Fatalf("a relay publishes under epoch %d: it believes in its lease, and epoch %d has begun", r.lease.epoch, db.lease.epoch)
	}
	stored, reported, fails := r.broker.failure(len(msgs))
	for _, m := range msgs[:stored] {
		r.broker.db.meanwhile() // frozen in the middle
		r.broker.store(m)
	}
	if fails {
		return reported, uint64(len(r.broker.stored)), errAckLost
	}
	return len(msgs), uint64(len(r.broker.stored)), nil
}

func (m *modelBroker) store(msg *nats.Msg) {
	r := m.find(msg.Header.Get("Nats-Msg-Id"))
	m.tries[r.id]++
	id := msg.Header.Get("Nats-Msg-Id")
	if slices.ContainsFunc(m.stored, func(s modelMsg) bool { return s.brokerID == id }) {
		return
	}
	m.ever[r.id] = true
	m.stored = append(m.stored, modelMsg{id, r.id, r.key})
}

// find returns the committed row of a message; any other was made up.
func (m *modelBroker) find(brokerID string) modelRow {
	for _, r := range m.db.rows {
		if id := r.messageID.String(); r.committed && (brokerID == id || len(brokerID) > len(id) && brokerID[:len(id)+2] == id+"#r") {
			return r
		}
	}
	m.db.t.Fatalf("message %s was published, and no committed row has that ID", brokerID)
	return modelRow{}
}

// inverted names two messages of one key of which the later came first.
func (m *modelBroker) inverted() error {
	last, seen := map[string]int64{}, map[int64]bool{}
	for _, s := range m.stored {
		if seen[s.row] {
			continue // a repeat
		}
		seen[s.row] = true
		if last[s.key] > s.row {
			return fmt.Errorf("key %s: row %d is in the stream before row %d", s.key, last[s.key], s.row)
		}
		last[s.key] = s.row
	}
	return nil
}
