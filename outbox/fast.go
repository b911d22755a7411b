package outbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fastRoute is a client of fast-ingest batches (ADR-50, server 2.14 and newer):
// messages flow without a wait for each ack, and the server stops at the first
// gap or error, so that what is stored is always the first part, in order.
//
// The protocol lives in reply subjects: <inbox>.<batch>.<flow>.fail.<i>.<op>.$FI.
type fastRoute struct {
	nc      *nats.Conn
	inbox   string
	replies chan *nats.Msg
}

const (
	// fastFlow is how many messages the server may store before it acks; fastWindow
	// is how many may be without an ack. Measured with nats-server 2.15: wider
	// windows give nothing.
	fastFlow   = 500
	fastWindow = 2000
)

// The operations of a message in a batch.
const (
	opStart  = "0"
	opAppend = "1"
	opCommit = "2"
)

// newFastRoute subscribes to the replies for as long as nc is open.
func newFastRoute(nc *nats.Conn) (*fastRoute, error) {
	f := &fastRoute{nc: nc, inbox: nc.NewInbox(), replies: make(chan *nats.Msg, 1024)}
	if _, err := nc.ChanSubscribe(f.inbox+".>", f.replies); err != nil {
		return nil, fmt.Errorf("subscribe to acks: %w", err)
	}
	return f, nil
}

func (*fastRoute) String() string { return "fast" }

func (f *fastRoute) publish(ctx context.Context, msgs []*nats.Msg) (stored int, seq uint64, err error) {
	if len(msgs) == 1 {
		return 0, 0, fmt.Errorf("fast batch of one message")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*ackTimeout, errAckTimeout)
	defer cancel()
	// The server knows a batch by this token alone: one that another session left
	// open under the same would go on instead.
	b := &fastBatch{route: f, prefix: f.inbox + "." + rand.Text() + "."}
	if err := b.send(ctx, msgs); err != nil {
		return min(b.stored(), len(msgs)), b.seq, fmt.Errorf("fast batch: %w", err)
	}
	return len(msgs), b.seq, nil
}

// fastBatch is one batch in flight.
type fastBatch struct {
	route  *fastRoute
	prefix string
	ended  bool
	acked  int    // first messages that are stored for certain
	count  int    // what the terminal ack says is stored
	seq    uint64 // the stream's, from the terminal ack
	err    error  // what the server said is wrong
}

func (b *fastBatch) stored() int { return max(b.acked, b.count) }

func (b *fastBatch) send(ctx context.Context, msgs []*nats.Msg) error {
	base := b.prefix + strconv.Itoa(fastFlow) + ".fail."
	for i, m := range msgs {
		op := opAppend
		switch i {
		case 0:
			op = opStart
		case len(msgs) - 1:
			op = opCommit
		}
		m.Reply = base + strconv.Itoa(i+1) + "." + op + ".$FI"
		if err := b.route.nc.PublishMsg(m); err != nil {
			return err
		}
		for b.acked+fastWindow <= i+1 {
			if err := b.receive(ctx); err != nil {
				return err
			}
		}
	}
	return b.finish(ctx, len(msgs))
}

// finish waits for the terminal ack.
func (b *fastBatch) finish(ctx context.Context, n int) error {
	for !b.ended {
		if err := b.receive(ctx); err != nil {
			return err
		}
	}
	if b.count != n {
		return fmt.Errorf("the server stored %d of %d", b.count, n)
	}
	return nil
}

// receive takes one reply. After an error it waits for the terminal ack too, or
// for ctx, to learn what is stored.
func (b *fastBatch) receive(ctx context.Context) error {
	select {
	case m := <-b.route.replies:
		if strings.HasPrefix(m.Subject, b.prefix) { // else of a batch that was given up
			b.reply(m.Data)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if b.err != nil && b.ended {
		return b.err
	}
	return nil
}

var ackPrefix = []byte(`{"type":"ack","seq":`)

// reply reads what the server says. Acks are the hot path, and only digits.
func (b *fastBatch) reply(data []byte) {
	if digits, ok := bytes.CutPrefix(data, ackPrefix); ok {
		n := 0
		for _, c := range digits {
			if c < '0' || c > '9' {
				break
			}
			n = n*10 + int(c-'0')
		}
		b.acked = max(b.acked, n)
		return
	}
	b.anomaly(data)
}

// anomaly reads a reply that is not an ack: a gap, an error about one message, or
// the terminal ack, which has no type.
func (b *fastBatch) anomaly(data []byte) {
	var r struct {
		Type  string              `json:"type"`
		Error *jetstream.APIError `json:"error"`
		Seq   uint64              `json:"seq"`
		Count int                 `json:"count"`
	}
	if len(data) == 0 {
		b.err, b.ended = nats.ErrNoResponders, true // no stream listens: a 503 without a body
		return
	}
	if err := json.Unmarshal(data, &r); err != nil {
		b.err, b.ended = fmt.Errorf("unexpected reply: %w", err), true
		return
	}
	switch {
	case r.Error != nil && b.err == nil:
		b.err = r.Error
	case r.Type == "gap" && b.err == nil:
		b.err = fmt.Errorf("the server missed a message")
	}
	if r.Type == "" {
		b.ended, b.count, b.seq = true, r.Count, r.Seq
	}
}
