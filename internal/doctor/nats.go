package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/streams"
)

// largest is what the outbox's CHECKs let through: payload, headers, and what
// jetbox adds.
const largest = 900_000 + 8192 + 1024

// NATS looks at the server, the streams and the worker's consumer.
func NATS(ctx context.Context, nc *nats.Conn, cfg Config) ([]Finding, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("doctor: jetstream: %w", err)
	}
	found := broker(nc)
	if _, err := js.AccountInfo(ctx); err != nil {
		return append(found, noJetStream(err)), nil
	}
	for _, want := range cfg.Streams {
		more, err := stream(ctx, js, want)
		if err != nil {
			return found, fmt.Errorf("doctor: stream %s: %w", want.Name, err)
		}
		found = append(found, more...)
	}
	more, err := consumer(ctx, js, cfg)
	return append(found, more...), err
}

func broker(nc *nats.Conn) (found []Finding) {
	if n := nc.MaxPayload(); n < largest {
		found = append(found, Finding{
			Error, "max_payload", fmt.Sprintf("the server's max_payload is %d, and the outbox takes messages of %d", n, largest),
			"set max_payload: 1MB in the server's configuration",
		})
	}
	var major, minor int
	version := nc.ConnectedServerVersion()
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < 2 || (major == 2 && minor < 12)) {
		found = append(found, Finding{
			Warning, "nats_version", "NATS " + version + " has no batches: the relay publishes one by one",
			"use NATS 2.14 or newer",
		})
	}
	return found
}

func noJetStream(err error) Finding {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return Finding{Error, "jetstream", "JetStream is off, on this server or for this account", "start nats-server with -js, or enable JetStream for the account"}
	}
	return Finding{
		Error, "nats_permissions", "the JetStream API does not answer: " + err.Error(),
		"give this NATS user the permissions that deploy/nats-permissions.conf lists for its daemon",
	}
}

// stream judges a stream that exists; the relay makes one that does not.
func stream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) ([]Finding, error) {
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := shape(ctx, js, want)
	return append(found, habits(s.CachedInfo())...), err
}

// shape is what a relay would refuse.
func shape(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) ([]Finding, error) {
	err := streams.Ensure(ctx, js, []jetstream.StreamConfig{want}, true)
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, streams.ErrNotReady):
		return []Finding{{Error, "stream_interest", err.Error(), "start a worker before the relay"}}, nil
	case !errors.Is(err, streams.ErrConfig):
		return nil, err
	}
	return []Finding{{Error, "stream", strings.ReplaceAll(err.Error(), "\n", "; "), "start the relay, which corrects what can be changed, or do what is said"}}, nil
}

// habits are settings that work and will be regretted.
func habits(info *jetstream.StreamInfo) (found []Finding) {
	c := info.Config
	add := func(wrong bool, level, check, text, fix string) {
		if wrong {
			found = append(found, Finding{level, check, "stream " + c.Name + " " + text, fix})
		}
	}
	edit := "nats stream edit " + c.Name + " "
	add(c.Duplicates < 30*time.Second, Warning, "duplicate_window",
		fmt.Sprintf("remembers message IDs for %s only: repeats reach the workers, whose inbox absorbs them", c.Duplicates), edit+"--dupe-window=2m")
	add(c.Storage == jetstream.MemoryStorage, Warning, "memory_storage", "is kept in memory: a restart of the server empties it, and the relay publishes again",
		"write storage: file in jetbox.yaml, and empty and remove the stream")
	add(c.MaxMsgSize > 0 && c.MaxMsgSize < largest, Error, "max_msg_size",
		fmt.Sprintf("takes messages of %d bytes, and the outbox of %d", c.MaxMsgSize, largest), edit+"--max-msg-size=-1")
	add(info.Cluster != nil && info.Cluster.Name != "" && c.Replicas < 3, Warning, "replicas",
		fmt.Sprintf("has %d copy in a cluster: it is away while that server is", c.Replicas), edit+"--replicas=3")
	add(c.MaxBytes > 0 && info.State.Bytes > uint64(c.MaxBytes)/10*9, Warning, "stream_full",
		fmt.Sprintf("holds %d of %d bytes: the relay waits when it is full", info.State.Bytes, c.MaxBytes), "start more workers, or raise max_bytes")
	return found
}

func consumer(ctx context.Context, js jetstream.JetStream, cfg Config) ([]Finding, error) {
	info, err := inbox.CheckConsumer(ctx, js, cfg.Stream, cfg.Consumer)
	switch {
	case errors.Is(err, inbox.ErrConsumer):
		return []Finding{{Error, "consumer", err.Error(), fmt.Sprintf("nats consumer rm %s %s: the worker makes it anew", cfg.Stream, cfg.Consumer)}}, nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil // the relay makes it
	case err != nil:
		return nil, fmt.Errorf("doctor: consumer: %w", err)
	case info != nil && info.Paused:
		return []Finding{{
			Warning, "paused", fmt.Sprintf("consumer %s is paused for %s: its messages wait", cfg.Consumer, info.PauseRemaining.Round(time.Second)),
			"jetbox resume",
		}}, nil
	}
	return nil, nil
}
