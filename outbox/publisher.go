package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/streams"
)

// publisher stores batches in their streams.
type publisher struct {
	targets    []*target
	plain      plainRoute
	maxPayload int64
	generation int
	lease      *lease
	pace       *pace
	m          *metrics
}

// target is a declared stream and the route that is best for it.
type target struct {
	name     string
	subjects []string
	route    route
	interest *interest
	state    streamState
}

func newPublisher(ctx context.Context, nc *nats.Conn, declared []jetstream.StreamConfig) (*publisher, error) {
	js, err := jetstream.New(nc,
		jetstream.WithPublishAsyncMaxPending(plainWindow),
		jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	p := &publisher{plain: plainRoute{js: js}, maxPayload: nc.MaxPayload()}
	for _, cfg := range declared {
		s, err := js.Stream(ctx, cfg.Name)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
		t, err := newTarget(nc, js, s)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
		p.targets = append(p.targets, t)
	}
	return p, nil
}

func newTarget(nc *nats.Conn, js jetstream.JetStream, s jetstream.Stream) (*target, error) {
	info := s.CachedInfo()
	route, err := newAutoRoute(nc, js, info.Config)
	if err != nil {
		return nil, err
	}
	return &target{
		name:     info.Config.Name,
		subjects: info.Config.Subjects,
		route:    route,
		interest: newInterest(s),
		state:    streamState{Created: info.Created, LastSeq: info.State.LastSeq},
	}, nil
}

// publish stores every row of b, which is prepared, in order per key, or sets it aside as dead. An
// error leaves the rest of b unknown.
func (p *publisher) publish(ctx context.Context, b *batch) error {
	start := time.Now()
	b.streams = make(map[string]streamState, len(b.groups))
	for t, g := range b.groups {
		if err := p.publishGroup(ctx, t, b, g); err != nil {
			return fmt.Errorf("publish to stream %s: %w", t.name, err)
		}
		b.streams[t.name] = t.state
	}
	b.stored = time.Now()
	took := b.stored.Sub(start)
	p.pace.learn(len(b.rows), took)
	p.m.publishedBatch(b, took)
	return nil
}

// group is the messages of a batch that go to one stream, and their rows.
type group struct {
	msgs []*nats.Msg
	rows []*row
}

// prepare turns the rows of b into messages, while the batch before is published.
func (p *publisher) prepare(b *batch) {
	b.groups = make(map[*target]*group, 1)
	generation := 0
	if b.replay {
		generation = p.generation
	}
	for i := range b.rows {
		r := &b.rows[i]
		t, m, err := p.address(r, generation)
		if err != nil {
			b.bury(r, err)
			continue
		}
		g := b.groups[t]
		if g == nil {
			g = &group{msgs: make([]*nats.Msg, 0, len(b.rows)), rows: make([]*row, 0, len(b.rows))}
			b.groups[t] = g
		}
		g.msgs, g.rows = append(g.msgs, m), append(g.rows, r)
	}
}

// address makes a row's message and finds its stream. An error is the reason
// why no stream could ever take it.
func (p *publisher) address(r *row, generation int) (*target, *nats.Msg, error) {
	m, err := r.message(generation)
	if err != nil {
		return nil, nil, err
	}
	if int64(m.Size()) > p.maxPayload {
		return nil, nil, fmt.Errorf("body and headers exceed the server's max_payload of %d bytes", p.maxPayload)
	}
	t := p.target(r.subject)
	switch {
	case t == nil:
		return nil, nil, errors.New("no declared stream takes this subject: declare one in jetbox.yaml")
	case !t.interest.takes(r.subject):
		return nil, nil, fmt.Errorf("stream %s keeps messages only for consumers, and none takes this subject: start its worker, then redrive", t.name)
	}
	return t, m, nil
}

// target is the stream that takes a subject, nil for none.
func (p *publisher) target(subject string) *target {
	for _, t := range p.targets {
		for _, pattern := range t.subjects {
			if streams.Covers(pattern, subject) {
				return t
			}
		}
	}
	return nil
}

// goesTo says whether a subject's messages are published to a stream.
func (p *publisher) goesTo(stream, subject string) bool {
	t := p.target(subject)
	return t != nil && t.name == stream
}

// publishGroup follows the stream's route, and goes message by message where
// the route cannot say which one is at fault.
func (p *publisher) publishGroup(ctx context.Context, t *target, b *batch, g *group) error {
	for via := t.route; len(g.msgs) > 0; {
		if !p.lease.valid() {
			return errLeaseLost
		}
		n, seq, err := via.publish(ctx, g.msgs)
		g.msgs, g.rows = g.msgs[n:], g.rows[n:]
		t.state.LastSeq = max(t.state.LastSeq, seq)
		if err == nil {
			continue
		}
		switch c := classify(err); {
		case (c == badRow || c == wholeBatch) && via != p.plain:
			via = p.plain
			dropBatchHeaders(g.msgs)
		case c == badRow:
			b.bury(g.rows[0], err)
			g.msgs, g.rows = g.msgs[1:], g.rows[1:]
		default:
			p.m.failure(c)
			return err
		}
	}
	return nil
}

// dropBatchHeaders makes messages of a refused atomic batch ordinary again.
func dropBatchHeaders(msgs []*nats.Msg) {
	for _, m := range msgs {
		m.Reply = ""
		for _, name := range []string{"Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"} {
			delete(m.Header, name)
		}
	}
}

// bury sets a row aside that no stream could ever take.
func (b *batch) bury(r *row, reason error) {
	headers, _ := r.header() // what of them can be read; reason says what is wrong
	b.dead = append(b.dead, deadletter.Letter{
		MessageID: r.messageID, Consumer: deadletter.Relay, Subject: r.subject, Key: r.key, Headers: headers,
		Payload: r.body, ContentType: r.mediaType(), Reason: reason.Error(), OutboxID: r.id,
	})
}

// routes tells an operator how each stream is published to.
func (p *publisher) routes() map[string]string {
	routes := make(map[string]string, len(p.targets))
	for _, t := range p.targets {
		routes[t.name] = t.route.String()
	}
	return routes
}
