// Package streams brings JetStream streams to the shape that the configuration
// asks for, and refuses those that would lose messages.
//
// Ensure creates what is missing and changes what can be changed; what a
// configuration leaves unset it leaves alone. It never deletes a stream, a
// message or a setting that someone else made.
package streams

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrConfig reports a stream that a person has to correct: trying again
	// cannot help.
	ErrConfig = errors.New("stream configuration")
	// ErrNotReady reports an interest stream without a consumer: it would
	// acknowledge each message and drop it. Try again once a worker has started.
	ErrNotReady = errors.New("stream not ready")
)

// Default is the stream of an installation that configures none.
func Default() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               "JOBS",
		Subjects:           []string{"jobs.>"},
		Retention:          jetstream.WorkQueuePolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           1,
		Discard:            jetstream.DiscardNew,
		Duplicates:         2 * time.Minute,
		AllowAtomicPublish: true,
		AllowBatchPublish:  true,
	}
}

// Ensure creates or updates the streams want, or, when verifyOnly, only looks.
// One error names every wrong field of every stream with what corrects it and
// wraps ErrConfig; ErrNotReady comes only when nothing else is wrong; any other
// error is NATS out of reach.
func Ensure(ctx context.Context, js jetstream.JetStream, want []jetstream.StreamConfig, verifyOnly bool) error {
	wrong, waiting, again, err := ensureEach(ctx, js, want, verifyOnly)
	if len(again) > 0 && len(again) < len(want) && !verifyOnly && err == nil {
		// A subject may have been another's until that one was changed.
		var late []error
		wrong, late, _, err = ensureEach(ctx, js, again, false)
		waiting = append(waiting, late...)
	}
	switch {
	case err != nil:
		return err
	case len(wrong) > 0:
		return errors.Join(wrong...)
	}
	return errors.Join(waiting...)
}

// ensureEach sorts errors, and lists the streams that are wrong.
func ensureEach(ctx context.Context, js jetstream.JetStream, want []jetstream.StreamConfig, verifyOnly bool) (
	wrong, waiting []error, again []jetstream.StreamConfig, err error,
) {
	for _, w := range want {
		err := ensure(ctx, js, forServer(js, w), verifyOnly)
		switch {
		case errors.Is(err, ErrConfig):
			wrong, again = append(wrong, err), append(again, w)
		case errors.Is(err, ErrNotReady):
			waiting = append(waiting, err)
		case err != nil:
			return nil, nil, nil, err
		}
	}
	return wrong, waiting, again, nil
}

func ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, verifyOnly bool) error {
	info, err := lookUp(ctx, js, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && verifyOnly:
		return misconfigured(want.Name, []string{"is missing: " + addCommand(want)})
	case errors.Is(err, jetstream.ErrStreamNotFound):
		if info, err = create(ctx, js, want); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("stream %s: look up: %w", want.Name, err)
	}
	if verifyOnly {
		err = verify(info.Config, want)
	} else {
		err = update(ctx, js, info.Config, want)
	}
	if err != nil {
		return err
	}
	if info.Config.Retention == jetstream.InterestPolicy && info.State.Consumers == 0 {
		return fmt.Errorf("%w: stream %s keeps messages only for consumers and has none: start a worker", ErrNotReady, want.Name)
	}
	return nil
}

func lookUp(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

func create(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	if losses := losses(want); len(losses) > 0 {
		return nil, misconfigured(want.Name, losses)
	}
	s, err := js.CreateStream(ctx, want)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return lookUp(ctx, js, want.Name) // another process was faster
	}
	if err != nil {
		return nil, refused(want.Name, "create", err)
	}
	return s.CachedInfo(), nil
}

func verify(have, want jetstream.StreamConfig) error {
	diffs := compare(have, merge(have, want))
	lines := make([]string, 0, len(diffs))
	for _, d := range diffs {
		if d.kind != optional {
			lines = append(lines, d.line(have.Name))
		}
	}
	if lines = append(lines, losses(have)...); len(lines) > 0 {
		return misconfigured(have.Name, lines)
	}
	return nil
}

func update(ctx context.Context, js jetstream.JetStream, have, want jetstream.StreamConfig) error {
	target := merge(have, want)
	diffs := compare(have, target)
	lines := losses(target)
	for _, d := range diffs {
		if d.kind == fixed {
			lines = append(lines, d.line(have.Name))
		}
	}
	if len(lines) > 0 {
		return misconfigured(have.Name, lines)
	}
	if len(diffs) == 0 {
		return nil
	}
	if _, err := js.UpdateStream(ctx, target); err != nil {
		return refused(have.Name, "update", err)
	}
	return nil
}

// NoPeers is what a cluster answers that has too few servers for the replicas, as
// any has while it starts or while a server is away.
const NoPeers = jetstream.ErrorCode(10005)

// refused tells a server that says no from one that cannot serve now (503).
func refused(name, step string, err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code != http.StatusServiceUnavailable && api.ErrorCode != NoPeers {
		return misconfigured(name, []string{fmt.Sprintf("%s: %s", step, api.Description)})
	}
	return fmt.Errorf("stream %s: %s: %w", name, step, err)
}

func misconfigured(name string, lines []string) error {
	return fmt.Errorf("%w: stream %s: %s", ErrConfig, name, strings.Join(lines, "\n\tstream "+name+": "))
}
