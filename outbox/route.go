package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/jetboxhq/jetbox/internal/wire"
)

// route stores messages in one stream, in order. It reports how many of the
// first are stored for certain and the stream's sequence then; err says what
// stopped the rest, which may be stored or not. Without an error the rest has
// not been sent: a call sends no more than belongs together, so that a relay which
// was frozen meanwhile comes to look at its lease.
type route interface {
	publish(ctx context.Context, msgs []*nats.Msg) (stored int, seq uint64, err error)
	String() string
}

// ackTimeout ends the wait for a PubAck. What it leaves is unknown and is
// published again, so it only bounds a stall.
const ackTimeout = 5 * time.Second

// atomicRoute stores a batch as a whole or not at all (server 2.12 and newer):
// no failure leaves a hole or a reordering. With sync_interval: always the
// server also syncs once a batch.
type atomicRoute struct{ js jetstream.JetStream }

func (atomicRoute) String() string { return "atomic" }

// atomicRows is the server's limit.
const atomicRows = 1000

func (a atomicRoute) publish(ctx context.Context, msgs []*nats.Msg) (stored int, seq uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	msgs = msgs[:min(len(msgs), atomicRows)]
	ack, err := jetstreamext.PublishMsgBatch(ctx, a.js, msgs, noFirstAck)
	if err != nil {
		return 0, 0, fmt.Errorf("atomic batch: %w", err)
	}
	return len(msgs), ack.Sequence, nil
}

// noFirstAck saves a round trip a batch: only the commit's ack counts.
var noFirstAck = jetstreamext.BatchFlowControl{AckTimeout: ackTimeout}

// plainRoute publishes one message at a time to any server, with many in flight:
// but never two of one key, so that no failure can reorder a key.
type plainRoute struct {
	js    jetstream.JetStream
	fresh *int // counts the messages that the stream did not have; nil where nobody asks
}

// plainWindow is how many messages may be in flight.
const plainWindow = 256

func (plainRoute) String() string { return "plain" }

func (p plainRoute) publish(ctx context.Context, msgs []*nats.Msg) (stored int, seq uint64, err error) {
	return p.publishTogether(ctx, msgs[:independent(msgs)])
}

// independent counts the first messages of which no two share a key.
func independent(msgs []*nats.Msg) int {
	keys := make(map[string]bool, plainWindow)
	for i, m := range msgs {
		key := m.Header.Get(wire.Key)
		if i == plainWindow || (key != "" && keys[key]) {
			return i
		}
		keys[key] = true
	}
	return len(msgs)
}

// publishTogether puts msgs in flight at once, waits for every ack, and reports
// how many were stored before the first that was not.
func (p plainRoute) publishTogether(ctx context.Context, msgs []*nats.Msg) (stored int, seq uint64, err error) {
	futures := make([]jetstream.PubAckFuture, 0, len(msgs))
	for _, m := range msgs {
		f, sendErr := p.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
		if sendErr != nil {
			err = sendErr
			break
		}
		futures = append(futures, f)
	}
	for i, f := range futures {
		ack, ackErr := awaitAck(ctx, f)
		if ackErr != nil {
			return i, seq, fmt.Errorf("publish: %w", ackErr)
		}
		seq = max(seq, ack.Sequence)
		if p.fresh != nil && !ack.Duplicate {
			*p.fresh++
		}
	}
	if err != nil {
		err = fmt.Errorf("publish: %w", err)
	}
	return len(futures), seq, err
}

var errAckTimeout = errors.New("no ack in time")

func awaitAck(ctx context.Context, f jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	late := time.NewTimer(2 * ackTimeout)
	defer late.Stop()
	select {
	case ack := <-f.Ok():
		return ack, nil
	case err := <-f.Err():
		return nil, err
	case <-late.C:
		return nil, errAckTimeout
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
