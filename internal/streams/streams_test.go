package streams_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/streams"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// connect's cleanup runs after that of wanted, which still needs the connection.
func connect(t *testing.T) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(testenv.NATS(t))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// wanted is the default stream under a name of the test's own. It is removed
// when the test ends, whoever made it.
func wanted(t *testing.T, js jetstream.JetStream) jetstream.StreamConfig {
	t.Helper()
	c := streams.Default()
	prefix := testenv.Subject(t)
	c.Name, c.Subjects = strings.ToUpper(prefix), []string{prefix + ".>"}
	t.Cleanup(func() {
		if err := js.DeleteStream(context.Background(), c.Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Error(err)
		}
	})
	return c
}

func ensure(t *testing.T, js jetstream.JetStream, verifyOnly bool, want ...jetstream.StreamConfig) error {
	t.Helper()
	return streams.Ensure(t.Context(), js, want, verifyOnly)
}

func config(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func TestEnsure_CreatesWhatIsMissing(t *testing.T) {
	t.Parallel()
	js := connect(t)
	want := wanted(t, js)
	for range 2 { // the second time there is nothing to do
		if err := ensure(t, js, false, want); err != nil {
			t.Fatal(err)
		}
	}
	got := config(t, js, want.Name)
	if got.Retention != jetstream.WorkQueuePolicy || got.Discard != jetstream.DiscardNew || !got.AllowAtomicPublish || !got.AllowBatchPublish {
		t.Errorf("stream = %+v, want the default's shape", got)
	}
}

func TestEnsure_ChangesWhatCanBeChangedAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	js := connect(t)
	want := wanted(t, js)
	have := jetstream.StreamConfig{
		Name: want.Name, Subjects: want.Subjects, Retention: jetstream.WorkQueuePolicy,
		Description: "ours", MaxBytes: 1 << 20,
	}
	if _, err := js.CreateStream(t.Context(), have); err != nil {
		t.Fatal(err)
	}
	want.Subjects = append(want.Subjects, testenv.Subject(t))
	want.Duplicates = time.Minute
	if err := ensure(t, js, false, want); err != nil {
		t.Fatal(err)
	}
	got := config(t, js, want.Name)
	if len(got.Subjects) != 2 || got.Duplicates != time.Minute || got.Discard != jetstream.DiscardNew || !got.AllowAtomicPublish {
		t.Errorf("stream = %+v, want the changes made", got)
	}
	if got.Description != "ours" || got.MaxBytes != 1<<20 {
		t.Errorf("stream = %+v, want the operator's description and max_bytes kept", got)
	}
}

func TestEnsure_MovesASubjectToAStreamThatIsDeclaredEarlier(t *testing.T) {
	t.Parallel()
	js := connect(t)
	jobs, mail := wanted(t, js), wanted(t, js)
	a, m := strings.ToLower(jobs.Name)+".a", strings.ToLower(jobs.Name)+".m"
	jobs.Subjects, mail.Subjects = []string{a, m}, []string{m}
	if err := streams.Ensure(t.Context(), js, []jetstream.StreamConfig{jobs}, false); err != nil {
		t.Fatal(err)
	}
	jobs.Subjects = []string{a}
	if err := streams.Ensure(t.Context(), js, []jetstream.StreamConfig{mail, jobs}, false); err != nil {
		t.Errorf("Ensure = %v, want the subject moved", err)
	}
}

func TestEnsure_NamesEveryWrongFieldOfEveryStream(t *testing.T) {
	t.Parallel()
	js := connect(t)
	first, second := wanted(t, js), wanted(t, js)
	for _, c := range []jetstream.StreamConfig{first, second} {
		c.Retention, c.Storage = jetstream.LimitsPolicy, jetstream.MemoryStorage
		if _, err := js.CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	err := ensure(t, js, false, first, second)
	if !errors.Is(err, streams.ErrConfig) {
		t.Fatalf("Ensure = %v, want ErrConfig", err)
	}
	for _, want := range []string{
		"stream " + first.Name + ": retention is limits, need workqueue: this cannot be changed: write retention: limits in jetbox.yaml",
		"stream " + first.Name + ": storage is memory, need file",
		"stream " + second.Name + ": retention is limits, need workqueue",
		"stream " + second.Name + ": storage is memory, need file",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Ensure = %v\nwant %q in it", err, want)
		}
	}
}

func TestEnsure_OnlyLooksWhenItMayOnlyVerify(t *testing.T) {
	t.Parallel()
	js := connect(t)
	missing, short := wanted(t, js), wanted(t, js)
	have := short
	have.Discard, have.AllowBatchPublish = jetstream.DiscardOld, false
	if _, err := js.CreateStream(t.Context(), have); err != nil {
		t.Fatal(err)
	}
	if err := ensure(t, js, true, short); err != nil {
		t.Errorf("Ensure = %v, want nil: what differs does not matter", err)
	}
	short.Subjects = []string{short.Subjects[0], "more.>"}
	err := ensure(t, js, true, missing, short)
	for _, want := range []string{
		"stream " + missing.Name + ": is missing: run nats stream add " + missing.Name,
		"subjects is [" + have.Subjects[0] + "], need [more.> " + have.Subjects[0] + "]: run nats stream edit " + short.Name + " --subjects=" + have.Subjects[0] + ",more.>",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Ensure = %v\nwant %q in it", err, want)
		}
	}
	if got := config(t, js, short.Name); len(got.Subjects) != 1 || got.Discard != jetstream.DiscardOld {
		t.Errorf("stream = %+v, want it untouched", got)
	}
}

func TestEnsure_RefusesStreamsThatAcknowledgeAndDrop(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		spoil func(*jetstream.StreamConfig)
		want  string
	}{
		"old messages for a count": {
			func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 10 },
			"discard is old with max_msgs 10",
		},
		"old messages for bytes": {
			func(c *jetstream.StreamConfig) { c.Discard, c.MaxBytes = jetstream.DiscardOld, 1000 },
			"discard is old with max_bytes 1000",
		},
		"old messages of a subject": {
			func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
			"max_msgs_per_subject is 1",
		},
		"messages after minutes": {
			func(c *jetstream.StreamConfig) { c.MaxAge = 10 * time.Minute },
			"max_age is 10m0s, need at least 1h0m0s",
		},
		"messages it never acknowledges": {func(c *jetstream.StreamConfig) {
			c.NoAck, c.AllowAtomicPublish, c.AllowBatchPublish = true, false, false
		}, "no_ack is true"},
		"messages before they are written": {func(c *jetstream.StreamConfig) {
			c.PersistMode, c.AllowAtomicPublish, c.AllowBatchPublish = jetstream.AsyncPersistMode, false, false
		}, "persist_mode is async"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := connect(t)
			c := wanted(t, js)
			tt.spoil(&c)
			refuse := func(when string, err error) {
				if !errors.Is(err, streams.ErrConfig) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Ensure %s = %v, want ErrConfig with %q", when, err, tt.want)
				}
			}
			refuse("of a new stream", ensure(t, js, false, c))
			if _, err := js.CreateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			refuse("of one that exists", ensure(t, js, true, c))
		})
	}
}

func TestEnsure_WaitsForTheFirstConsumerOfAnInterestStream(t *testing.T) {
	t.Parallel()
	js := connect(t)
	c := wanted(t, js)
	c.Retention = jetstream.InterestPolicy
	if err := ensure(t, js, false, c); !errors.Is(err, streams.ErrNotReady) {
		t.Fatalf("Ensure = %v, want ErrNotReady", err)
	}
	if _, err := js.CreateConsumer(t.Context(), c.Name, jetstream.ConsumerConfig{Durable: "w"}); err != nil {
		t.Fatal(err)
	}
	if err := ensure(t, js, false, c); err != nil {
		t.Errorf("Ensure with a consumer = %v, want nil", err)
	}
}

func TestEnsure_SaysWhatTheServerRefuses(t *testing.T) {
	t.Parallel()
	js := connect(t)
	first, second := wanted(t, js), wanted(t, js)
	second.Subjects = first.Subjects
	err := ensure(t, js, false, first, second)
	if !errors.Is(err, streams.ErrConfig) || !strings.Contains(err.Error(), "stream "+second.Name+": create: subjects overlap") {
		t.Errorf("Ensure = %v, want ErrConfig that says the subjects overlap", err)
	}
}

// A cluster of three that is asked for five stands for one that has just started.
func TestEnsure_WaitsForServersThatAReplicatedStreamNeeds(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(testenv.Dial(t, testenv.Cluster(t)[0].ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	c := streams.Default()
	c.Replicas = 5
	if err := ensure(t, js, false, c); err == nil || errors.Is(err, streams.ErrConfig) || !strings.Contains(err.Error(), "no suitable peers") {
		t.Errorf("Ensure = %v, want one that may pass, about peers", err)
	}
}

func TestCovers_MatchesAsTheServerDoes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, subject string
		want             bool
	}{
		{"jobs.>", "jobs.email", true},
		{"jobs.>", "jobs.email.send", true},
		{"jobs.>", "jobs", false},
		{"jobs.*", "jobs.email", true},
		{"jobs.*", "jobs.email.send", false},
		{"jobs.*", "jobs.>", false},
		{"jobs.>", "jobs.*", true},
		{"jobs.email", "jobs.*", false},
		{"*.email", "jobs.email", true},
		{"jobs.email", "jobs.email", true},
		{"jobs.email", "jobs.emails", false},
		{"jobs", "jobs.email", false},
		{">", "jobs", true},
		{"jobs.>", "jobs.", false},
		{"jobs.*", "jobs.", false},
	} {
		if got := streams.Covers(tt.pattern, tt.subject); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v, want %v", tt.pattern, tt.subject, got, tt.want)
		}
	}
}
