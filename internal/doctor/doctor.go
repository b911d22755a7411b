// Package doctor looks at an installation before anything runs, and says what
// would go wrong, and what to do about it.
//
// It changes nothing. A finding is an error when messages could be lost, held
// up or run twice, and a warning when comfort, speed or secrecy suffers. What it
// cannot see from a client's connection, such as the broker's sync interval, it
// does not judge.
package doctor

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The levels of a finding.
const (
	Warning = "warning"
	Error   = "error"
)

// Finding is one thing that is wrong.
type Finding struct {
	Level string `json:"level"`
	Check string `json:"check"` // stable, for programs
	Found string `json:"found"`
	Fix   string `json:"fix"`
}

// Config says what the installation is meant to be.
type Config struct {
	// Streams are those that the relay publishes to.
	Streams []jetstream.StreamConfig
	// Stream and Consumer are the worker's.
	Stream, Consumer string
	// Private says that the database is jetbox up's own, whose only role is its
	// superuser.
	Private bool
	// OldTransaction is how long a transaction may be open. Zero means a minute.
	OldTransaction time.Duration
	// Skew is how far this machine's clock may be off the database's. Zero means
	// 2 seconds.
	Skew time.Duration
	// Now is this machine's clock. Nil means time.Now.
	Now func() time.Time
}

// ExitCode is 0 without findings, 1 with warnings, 2 with errors.
func ExitCode(findings []Finding) int {
	code := 0
	for _, f := range findings {
		switch f.Level {
		case Error:
			return 2
		case Warning:
			code = 1
		}
	}
	return code
}
