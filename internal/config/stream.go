package config

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/streams"
)

// Stream is one entry of the section streams. What it leaves out is as in the
// stream JOBS: a work queue on file. A limit that is left out is the operator's.
type Stream struct {
	// Name and Subjects are required.
	Name     string   `yaml:"name"`
	Subjects []string `yaml:"subjects"`
	// Retention is limits, workqueue or interest.
	Retention Retention `yaml:"retention"`
	// Storage is file or memory.
	Storage Storage `yaml:"storage"`
	// Replicas is how many servers hold a copy, 1 to 5.
	Replicas int `yaml:"replicas"`
	// MaxAge is after how long the server drops a message, seen or not.
	MaxAge Duration `yaml:"max_age"`
	// MaxMsgs and MaxBytes stop the relay, until workers have made room.
	MaxMsgs  int64 `yaml:"max_msgs"`
	MaxBytes int64 `yaml:"max_bytes"`
	// DuplicateWindow is for how long the server remembers message IDs.
	DuplicateWindow Duration `yaml:"duplicate_window"`
}

var (
	streamName    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
	streamSubject = regexp.MustCompile(`^([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*))*(\.>)?$`)
)

func (s Stream) config() jetstream.StreamConfig {
	c := streams.Default()
	c.Name = s.Name
	c.Subjects = s.Subjects
	if s.Retention.set {
		c.Retention = s.Retention.policy
	}
	c.Storage = jetstream.StorageType(s.Storage)
	c.Replicas = s.Replicas
	c.MaxAge = time.Duration(s.MaxAge)
	c.MaxMsgs = s.MaxMsgs
	c.MaxBytes = s.MaxBytes
	if s.DuplicateWindow > 0 {
		c.Duplicates = time.Duration(s.DuplicateWindow)
	}
	return c
}

// validateStreams reports every mistake that the keys one by one do not show.
func (f File) validateStreams() []error {
	var errs []error
	names := map[string]bool{}
	for i, s := range f.Streams {
		for _, err := range s.validate() {
			errs = append(errs, fmt.Errorf("streams, entry %d (%s): %w", i+1, s.Name, err))
		}
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("streams, entry %d: the name %s is taken by an earlier one", i+1, s.Name))
		}
		names[s.Name] = true
	}
	return errs
}

func (s Stream) validate() []error {
	var errs []error
	if !streamName.MatchString(s.Name) {
		errs = append(errs, fmt.Errorf("name %q: need 1 to 100 of letters, digits, dash and underscore", s.Name))
	}
	if len(s.Subjects) == 0 {
		errs = append(errs, errors.New("subjects: need at least one, such as jobs.>"))
	}
	for _, subject := range s.Subjects {
		if !streamSubject.MatchString(subject) {
			errs = append(errs, fmt.Errorf("subjects: %q is not a subject such as jobs.email or jobs.>", subject))
		}
	}
	if s.Replicas < 0 || s.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas is %d, need 1 to 5", s.Replicas))
	}
	if s.MaxMsgs < 0 || s.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("max_msgs is %d and max_bytes %d: leave out what has no limit", s.MaxMsgs, s.MaxBytes))
	}
	return errs
}

// Retention is when the server may drop a message. The zero value is unset.
type Retention struct {
	policy jetstream.RetentionPolicy
	set    bool
}

// UnmarshalText reads limits, workqueue or interest.
func (r *Retention) UnmarshalText(text []byte) error {
	switch string(text) {
	case "limits":
		*r = Retention{jetstream.LimitsPolicy, true}
	case "workqueue":
		*r = Retention{jetstream.WorkQueuePolicy, true}
	case "interest":
		*r = Retention{jetstream.InterestPolicy, true}
	default:
		return fmt.Errorf("%q is not limits, workqueue or interest", text)
	}
	return nil
}

// Storage is where the server keeps a stream. The zero value is file.
type Storage jetstream.StorageType

// UnmarshalText reads file or memory.
func (s *Storage) UnmarshalText(text []byte) error {
	switch string(text) {
	case "file":
		*s = Storage(jetstream.FileStorage)
	case "memory":
		*s = Storage(jetstream.MemoryStorage)
	default:
		return fmt.Errorf("%q is not file or memory", text)
	}
	return nil
}
