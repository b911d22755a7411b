package outbox

import (
	"context"
	"log/slog"
	"time"

	"pgregory.net/rapid"
)

// modelRelay is one relay whose steps are taken one by one. Reader, publisher,
// ledger, healer and lease are the real ones; database and broker are models.
type modelRelay struct {
	w    *world
	name string

	busy      bool // in the middle of a step
	up        bool // a session runs
	cutOff    bool // its connection to the broker is lost: it can only record
	lease     *lease
	led       *ledger
	rd        *reader
	pub       *publisher
	healer    *healer
	out       chan *batch
	read      []*batch
	published []*batch
}

const modelLease = 4 * time.Second

// start does what Relay.session does, up to the pipeline.
func (r *modelRelay) start() {
	ctx := context.Background()
	if !r.take() {
		return
	}
	r.led = &ledger{conn: r.w.db, epoch: r.lease.epoch}
	at, err := r.led.load(ctx)
	if err != nil {
		r.w.t.Fatalf("load: %v", err)
	}
	r.healer = &healer{
		conn: r.w.db, js: modelJS{broker: r.w.broker}, streams: []string{"JOBS"},
		generation: r.led.generation, known: map[string]known{}, log: slog.New(slog.DiscardHandler), m: r.w.m,
	}
	r.up, r.cutOff, r.read, r.published = true, false, nil, nil
	if !r.survives(r.healer.check(ctx)) {
		return
	}
	r.out = make(chan *batch, 4096)
	r.rd = &reader{from: r.w.db, at: at, pace: newPace(), out: r.out, m: r.w.m, sending: func() {}, caughtUp: func() {}, backlog: func() {}}
	r.pub = &publisher{maxPayload: 1 << 40, generation: r.led.generation, pace: r.rd.pace, lease: r.lease, m: r.w.m, targets: []*target{{
		name: "JOBS", subjects: []string{"jobs.>"}, route: modelRoute{r.w.broker, r.lease},
		state: streamState{Created: r.w.broker.created, LastSeq: uint64(len(r.w.broker.stored))},
	}}}
}

// take is takeLeaseSQL, on its way there and back for some time.
func (r *modelRelay) take() bool {
	asked := time.Now()
	r.w.delay()
	held := &r.w.db.lease
	if held.expires.After(time.Now()) {
		return false
	}
	if held.epoch++; held.epoch > 1 {
		r.w.troubles++ // what the one before has in hand comes again
	}
	held.expires = time.Now().Add(modelLease)
	r.lease = &lease{epoch: held.epoch, ttl: modelLease}
	r.w.delay()
	r.lease.extend(asked)
	return true
}

// steps of a session; those that are here more than once come more often.
var steps = []string{
	"read", "read", "read", "publish", "publish", "publish", "publish", "record", "record", "record", "record",
	"renew", "renew", "heal", "stop", "die",
}

// step is the next thing that a running relay does, or its end. One that is in
// the middle of a step takes no other.
func (r *modelRelay) step() {
	if r.busy {
		return
	}
	r.busy = true
	defer func() { r.busy = false }()
	if !r.up {
		r.start()
		return
	}
	ctx := context.Background()
	switch rapid.SampledFrom(steps).Draw(r.w.t, r.name) {
	case "read":
		r.readOn(ctx)
	case "publish":
		r.publish(ctx)
	case "record":
		r.record(ctx)
	case "renew":
		r.renew()
	case "heal":
		if !r.cutOff {
			r.survives(r.healer.check(ctx))
		}
	case "stop":
		r.end()
		if r.w.db.lease.epoch == r.lease.epoch {
			r.w.db.lease.expires = time.Time{}
		}
	case "die":
		r.end()
	}
}

// survives ends the session on an error.
func (r *modelRelay) survives(err error) bool {
	if err != nil {
		r.end()
	}
	return err == nil
}

func (r *modelRelay) end() {
	r.up = false
	r.w.troubles++ // what was published and not recorded comes again
}

func (r *modelRelay) readOn(ctx context.Context) (found bool) {
	n, err := r.rd.next(ctx)
	if err != nil {
		r.w.t.Fatalf("read: %v", err)
	}
	for len(r.out) > 0 {
		r.read = append(r.read, <-r.out)
	}
	return n > 0
}

func (r *modelRelay) publish(ctx context.Context) {
	if len(r.read) == 0 || r.cutOff {
		return
	}
	b := r.read[0]
	r.pub.prepare(b)
	if r.survives(r.pub.publish(ctx, b)) {
		r.read, r.published = r.read[1:], append(r.published, b)
	}
}

func (r *modelRelay) record(ctx context.Context) {
	if len(r.published) == 0 {
		return
	}
	b, rest := r.published[0], r.published[1:]
	for len(rest) > 0 && rapid.Bool().Draw(r.w.t, "join") && b.join(rest[0]) {
		rest = rest[1:]
	}
	if r.survives(r.led.append(ctx, b)) {
		r.published = rest
		r.w.checkLedger()
	}
}

// renew is renewLeaseSQL.
func (r *modelRelay) renew() {
	asked := time.Now()
	r.w.delay()
	if r.w.db.lease.epoch != r.lease.epoch || !r.lease.valid() {
		r.end()
		return
	}
	r.w.db.lease.expires = time.Now().Add(modelLease)
	r.w.delay()
	r.lease.extend(asked)
}
