// Package config reads jetbox.yaml: the streams, and what the relay and the
// worker are told beyond their flags.
//
// Every mistake of a file is reported at once, with line and column. A key that
// is not known is a mistake, never ignored. What may be set here and by a flag
// is zero when the file leaves it out; the caller decides who wins.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// File is jetbox.yaml. The zero value is a file that says nothing.
type File struct {
	// Streams are the streams that the relay publishes to. None means JOBS.
	Streams []Stream `yaml:"streams"`
	// Relay tunes the relay.
	Relay Relay `yaml:"relay"`
	// Worker tunes the worker and names its handlers.
	Worker Worker `yaml:"worker"`
}

// Relay is the section relay.
type Relay struct {
	// Retention is how long sent messages stay in the outbox.
	Retention Duration `yaml:"retention"`
	// Lease is how long a relay that fell silent keeps the others waiting.
	Lease Duration `yaml:"lease"`
	// FallbackPoll is how often an idle relay looks although nobody rang.
	FallbackPoll Duration `yaml:"fallback_poll"`
	// ConfirmConsumer is the consumer whose inbox must hold what was published.
	ConfirmConsumer string `yaml:"confirm_consumer"`
	// ConfirmStream is that consumer's stream.
	ConfirmStream string `yaml:"confirm_stream"`
	// ConfirmGrace is how old a message must be to be missed.
	ConfirmGrace Duration `yaml:"confirm_grace"`
	// DrainTimeout is how long a batch may take to finish at shutdown.
	DrainTimeout Duration `yaml:"drain_timeout"`
}

// Worker is the section worker.
type Worker struct {
	// Stream is the stream to read.
	Stream string `yaml:"stream"`
	// Consumer is the durable consumer, and the name under which the inbox
	// remembers what was processed.
	Consumer string `yaml:"consumer"`
	// Subjects are what the consumer takes. None means all of a work queue, where
	// what no handler wants becomes a dead letter, and of another stream what the
	// handlers are for.
	Subjects []string `yaml:"subjects"`
	// Batch is how many messages share a transaction at most.
	Batch int `yaml:"batch"`
	// Concurrency is how many batches run at once, each on its own connection.
	Concurrency int `yaml:"concurrency"`
	// Calls is how many HTTP endpoints and commands are called at once.
	Calls int `yaml:"calls"`
	// MaxAttempts is how often a message is tried before it is a dead letter.
	MaxAttempts int `yaml:"max_attempts"`
	// RetryDelay is how long a message waits for its second attempt.
	RetryDelay Duration `yaml:"retry_delay"`
	// AckWait is how long the server waits for a settlement.
	AckWait Duration `yaml:"ack_wait"`
	// HandlerTimeout is how long one handler may run.
	HandlerTimeout Duration `yaml:"handler_timeout"`
	// Retention is how long the inbox remembers a message.
	Retention Duration `yaml:"retention"`
	// DrainTimeout is how long begun work may take to finish at shutdown.
	DrainTimeout Duration `yaml:"drain_timeout"`
	// Handlers says who takes which subject.
	Handlers []Handler `yaml:"handlers"`
}

// maxSize is far beyond any real file: a wrong path is noticed, not read.
const maxSize = 1 << 20

// Load reads the file at path.
func Load(path string) (File, error) {
	text, err := read(path)
	if err != nil {
		return File{}, fmt.Errorf("config %s: %w", path, err)
	}
	return parse(path, text)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is named by the caller
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a directory, need a file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxSize:
		return nil, fmt.Errorf("is larger than %d bytes", maxSize)
	}
	// Editors on Windows write a byte order mark; it says nothing.
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf("line %d holds a NUL byte, so this is not text (or it is UTF-16: save it as UTF-8)",
			1+bytes.Count(text[:i], []byte("\n")))
	}
	return text, nil
}

// StreamConfigs returns the streams to have, which is JOBS when the file names none.
func (f File) StreamConfigs() []jetstream.StreamConfig {
	if len(f.Streams) == 0 {
		return []jetstream.StreamConfig{streams.Default()}
	}
	list := make([]jetstream.StreamConfig, len(f.Streams))
	for i, s := range f.Streams {
		list[i] = s.config()
	}
	return list
}

// Duration is a time.Duration above zero, written as Go writes it.
type Duration time.Duration

// UnmarshalText reads text such as 90s.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// ParseDuration reads a duration above zero.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration above zero; examples: 500ms, 90s, 1h30m", s)
	}
	return d, nil
}
