package testenv

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/localenv"
)

// NATS returns a connection to the shared server, closed when the test ends.
func NATS(t testing.TB) *nats.Conn {
	t.Helper()
	return Dial(t, NATSURL(t))
}

// Dial returns a connection to the server at url, closed when the test ends.
func Dial(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("testenv: connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// NATSURL returns the URL of the shared server.
func NATSURL(t testing.TB) string {
	t.Helper()
	return broker.get(t)
}

// OwnNATS returns an embedded server that only this test has, to be stopped,
// started and robbed of its disk. A tune changes its options.
func OwnNATS(t testing.TB, tune ...func(*server.Options)) *localenv.NATS {
	t.Helper()
	n, err := localenv.StartNATS(t.TempDir(), 0, append([]func(*server.Options){unsynced}, tune...)...)
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return n
}

// Subject returns a subject prefix that no other test has.
func Subject(t testing.TB) string {
	t.Helper()
	return "t" + unique()
}

// Stream creates a stream that is deleted when the test ends, under a name and
// on subjects of the test's own where cfg has none, and returns what it made.
func Stream(t testing.TB, cfg jetstream.StreamConfig) jetstream.StreamConfig {
	t.Helper()
	js, err := jetstream.New(NATS(t))
	if err != nil {
		t.Fatalf("testenv: jetstream: %v", err)
	}
	prefix := Subject(t)
	if cfg.Name == "" {
		cfg.Name = strings.ToUpper(prefix)
	}
	if len(cfg.Subjects) == 0 {
		cfg.Subjects = []string{prefix + ".>"}
	}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatalf("testenv: create stream: %v", err)
	}
	t.Cleanup(func() { deleteStream(t, js, cfg.Name) })
	return cfg
}

// deleteStream also accepts a test that has deleted its stream itself.
func deleteStream(t testing.TB, js jetstream.JetStream, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("testenv: delete stream: %v", err)
	}
}

func startNATS(ctx context.Context) (url string, stop closer, err error) {
	if url, stop, err = findNATS(ctx); err == nil {
		err = keepStore(ctx, url)
	}
	return url, stop, err
}

// keepStore makes a stream that stays. With the last stream nats-server 2.15.2
// removes their directory, even while another test's stream is made in it.
func keepStore(ctx context.Context, url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "TESTENV"})
	return err
}

func findNATS(ctx context.Context) (string, closer, error) {
	if url := os.Getenv("TEST_NATS_URL"); url != "" {
		announce("NATS", "TEST_NATS_URL")
		return url, nil, nil
	}
	url, stop, noContainer := runNATS(ctx)
	if noContainer == nil {
		announce("NATS", natsImage)
		return url, stop, nil
	}
	dir, remove, err := tempDir()
	if err != nil {
		return "", nil, err
	}
	n, err := localenv.StartNATS(dir, 0, unsynced)
	if err != nil {
		return "", remove, err
	}
	announce("NATS", "embedded "+server.VERSION+because(noContainer))
	return n.URL(), inOrder(n.Stop, remove), nil
}

// unsynced spares the tests an fsync a message: no test cuts the power.
func unsynced(o *server.Options) { o.SyncAlways = false }
