package outbox

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// autoRoute publishes each batch the way that has proved cheapest on this
// stream. Which one that is depends on how the server syncs: fast-ingest where
// it syncs now and then, atomic where it syncs always and does so once a batch;
// no client can ask the server which it is, so the relay measures.
type autoRoute struct {
	plain plainRoute
	bulk  []*timedRoute
	turn  int
	// doubt is how many new messages must not go by fast-ingest at first, and fresh
	// how many have not: on a replicated stream it acknowledges a duplicate whose
	// original is only in flight (nats-server 2.15.2), and what a session before
	// this one sent may be that. A duplicate that plain acknowledges is stored, and
	// one in an atomic batch is refused.
	doubt, fresh int
	atomic       route // nil where the stream takes no atomic batches
}

const (
	// atomicStart is what an atomic batch costs however small: the server makes a
	// file store for each, which takes it 3 to 4 ms (nats-server 2.15.2).
	atomicStart = 3 * time.Millisecond
	// bulkSize is from how many messages on the bulk routes are worth their start:
	// so many take as long by the plain route.
	bulkSize = 64
	// exploreEvery is how often the costlier bulk route gets another chance.
	exploreEvery = 256
	// doubtful is what an earlier session can have had without an ack.
	doubtful = fastWindow + plainWindow
	// doubtRows is how many messages in doubt share an atomic batch: one duplicate
	// among them, and they go one by one.
	doubtRows = 256
)

// timedRoute remembers what a message costs by this route.
type timedRoute struct {
	route
	cost   time.Duration // the least of the trials, then a moving average
	trials int
}

// trials is how often a route is tried before they are compared: one trial may
// meet a busy moment.
const trials = 3

func newAutoRoute(nc *nats.Conn, js jetstream.JetStream, cfg jetstream.StreamConfig) (*autoRoute, error) {
	a := &autoRoute{}
	a.plain = plainRoute{js, &a.fresh}
	if cfg.AllowBatchPublish {
		fast, err := newFastRoute(nc)
		if err != nil {
			return nil, err
		}
		a.bulk = append(a.bulk, &timedRoute{route: fast})
		if cfg.Replicas > 1 {
			a.doubt = doubtful
		}
	}
	if cfg.AllowAtomicPublish {
		a.atomic = atomicRoute{js}
		a.bulk = append(a.bulk, &timedRoute{route: a.atomic})
	}
	return a, nil
}

// String names the bulk route in use, or plain.
func (a *autoRoute) String() string {
	if best := a.best(); best != nil {
		return best.String()
	}
	return a.plain.String()
}

func (a *autoRoute) publish(ctx context.Context, msgs []*nats.Msg) (int, uint64, error) {
	switch {
	case a.fresh < a.doubt:
		return a.publishDoubtful(ctx, msgs[:min(len(msgs), doubtRows)])
	case len(msgs) >= bulkSize && len(a.bulk) > 0:
		r, n := a.pick(len(msgs))
		return r.publish(ctx, msgs[:n])
	}
	return a.plain.publish(ctx, msgs)
}

// publishDoubtful stores msgs by no way that acknowledges what is only in flight.
func (a *autoRoute) publishDoubtful(ctx context.Context, msgs []*nats.Msg) (int, uint64, error) {
	if a.atomic == nil || len(msgs) < bulkSize {
		return a.plain.publish(ctx, msgs)
	}
	n, seq, err := a.atomic.publish(ctx, msgs)
	if classify(err) == wholeBatch {
		dropBatchHeaders(msgs)
		return a.plain.publish(ctx, msgs)
	}
	a.fresh += n
	return n, seq, err
}

// pick returns the cheapest route for n messages or, for only a few of them, one
// that is still on trial or deserves another chance. There is no trial of atomic
// batches where fast-ingest has stored a few before one of those would begin.
func (a *autoRoute) pick(n int) (*timedRoute, int) {
	for i, r := range a.bulk {
		if r.trials < trials && (i == 0 || a.bulk[0].cost*bulkSize > atomicStart) {
			return r, bulkSize
		}
	}
	if a.turn++; a.turn%exploreEvery == 0 {
		return a.bulk[a.turn/exploreEvery%len(a.bulk)], bulkSize
	}
	return a.best(), n
}

func (a *autoRoute) best() *timedRoute {
	var best *timedRoute
	for _, r := range a.bulk {
		if best == nil || (r.trials > 0 && r.cost < best.cost) {
			best = r
		}
	}
	return best
}

// publish notes what it cost. A failure is no measurement.
func (t *timedRoute) publish(ctx context.Context, msgs []*nats.Msg) (int, uint64, error) {
	start := time.Now()
	n, seq, err := t.route.publish(ctx, msgs)
	if err == nil {
		t.learn(max(time.Since(start)/time.Duration(n), 1))
	}
	return n, seq, err
}

func (t *timedRoute) learn(cost time.Duration) {
	switch {
	case t.trials == 0 || (t.trials < trials && cost < t.cost):
		t.cost = cost
	case t.trials >= trials:
		t.cost = (7*t.cost + cost) / 8
	}
	t.trials++
}
