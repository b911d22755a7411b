package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/natsconn"
)

// consumerFlags name a worker's consumer.
type consumerFlags struct {
	natsFlags
	Config   string `placeholder:"FILE" help:"Names the worker's stream and consumer (JETBOX_CONFIG; default jetbox.yaml if there is one)."`
	Stream   string `help:"Another stream."`
	Consumer string `help:"Another consumer."`
}

// consumerPlace is where a consumer is, for a person who looks or pauses.
type consumerPlace struct {
	broker       natsconn.Config
	stream, name string
}

func (f consumerFlags) place(w world, dir string) (consumerPlace, error) {
	s := &settings{env: newEnvironment(w.environ)}
	file := s.file(f.Config)
	broker, err := f.broker(w, dir)
	s.note(err)
	return consumerPlace{
		broker: broker,
		stream: cmp.Or(f.Stream, file.Worker.Stream, file.StreamConfigs()[0].Name),
		name:   cmp.Or(f.Consumer, file.Worker.Consumer, "worker"),
	}, found(s.mistakes...)
}

// open connects; the caller closes the connection.
func (p consumerPlace) open() (*nats.Conn, jetstream.JetStream, error) {
	nc, err := p.broker.Dial("jetbox operator", "_INBOX_operator")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: connect to NATS: %w", errUnreachable, err)
	}
	js, err := jetstream.New(nc)
	return nc, js, err
}

// missing explains an error about a consumer that is not there.
func (p consumerPlace) missing(err error) error {
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return mistakes{fmt.Errorf("there is no consumer %s on stream %s: a worker makes it when it first starts", p.name, p.stream)}
	}
	return fmt.Errorf("consumer %s of stream %s: %w", p.name, p.stream, err)
}

// brokerReport is what NATS says of the consumer.
type brokerReport struct {
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	// Requests are those for messages that wait for one: some worker lives.
	Requests int    `json:"requests"`
	InFlight int    `json:"in_flight"`
	Waiting  uint64 `json:"waiting"`
	Paused   bool   `json:"paused"`
	Error    string `json:"error,omitempty"`
}

// report never fails: what a database knows is worth showing without NATS. Away
// is why there is no js.
func (p consumerPlace) report(ctx context.Context, js jetstream.JetStream, away error) brokerReport {
	r := brokerReport{Stream: p.stream, Consumer: p.name}
	if away != nil {
		r.Error = away.Error()
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := js.Consumer(ctx, p.stream, p.name)
	if err != nil {
		r.Error = p.missing(err).Error()
		return r
	}
	info := c.CachedInfo()
	r.Requests, r.InFlight, r.Waiting, r.Paused = info.NumWaiting, info.NumAckPending, info.NumPending, info.Paused
	return r
}

// workers says whether anyone processes, as far as NATS can tell.
func (r brokerReport) workers() string {
	state := "none: nobody asks NATS for messages"
	switch {
	case r.Error != "":
		return "unknown: " + oneLine(r.Error)
	case r.Paused:
		state = "paused"
	case r.Requests > 0:
		state = "listening"
	case r.InFlight > 0:
		state = "busy, or gone since the last delivery"
	}
	return fmt.Sprintf("%s (%d in flight, %d waiting)", state, r.InFlight, r.Waiting)
}
