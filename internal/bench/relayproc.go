package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/internal/process"
)

// startRelay starts a relay in a process of its own: what it costs is not mixed
// with what the benchmark does. It returns once the relay leads and has published
// a first message.
func (l *lab) startRelay(ctx context.Context, to jetstream.Stream) (*process.Process, error) {
	if err := l.exec(ctx, "enqueue first message", enqueueSQL, l.subject(to), l.payload(), 1); err != nil {
		return nil, err
	}
	seq, err := l.ledgerSeq(ctx)
	if err != nil {
		return nil, err
	}
	relay, err := l.spawnRelay(to)
	if err != nil {
		return nil, err
	}
	err = l.until(ctx, time.Minute, func() (bool, error) {
		n, err := l.recorded(ctx, seq)
		return n > 0, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay does not publish: %w\n%s", err, relay.Tail()), relay.Stop())
	}
	return relay, nil
}

func (l *lab) spawnRelay(to jetstream.Stream) (*process.Process, error) {
	cfg := to.CachedInfo().Config
	yaml := fmt.Sprintf("streams: [{name: %s, subjects: [%q]}]\n", cfg.Name, cfg.Subjects[0])
	if err := os.WriteFile(l.path("jetbox.yaml"), []byte(yaml), 0o600); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	relay := &process.Process{
		Name: "relay", Executable: l.Executable, Args: []string{"relay"}, Env: l.relayEnv(), Log: l.path("relay.log"),
	}
	return relay, relay.Start()
}

func (l *lab) relayEnv() []string {
	n := l.nats
	return append(l.Environ[:len(l.Environ):len(l.Environ)],
		"DATABASE_URL="+l.url, "HTTP_ADDR=127.0.0.1:0", "LOG_FORMAT=json", "JETBOX_CONFIG="+l.path("jetbox.yaml"),
		"NATS_URL="+n.URL, "NATS_CREDS="+n.Creds, "NATS_NKEY="+n.NKey, "NATS_USER="+n.User, "NATS_PASSWORD="+n.Password,
		"NATS_TOKEN="+n.Token, "NATS_CA="+n.CA, "NATS_CERT="+n.Cert, "NATS_KEY="+n.Key)
}

// stopRelay ends the relay in order and returns the CPU time of its whole life.
func stopRelay(relay *process.Process) (cpu time.Duration, err error) {
	if err := relay.Stop(); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, relay.Tail())
	}
	return relay.CPU(), nil
}

// withDatabase is dsn, a URL or libpq's words, with another database.
func withDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil || !strings.Contains(dsn, "://") {
		return dsn + " dbname=" + name
	}
	q := u.Query()
	q.Del("dbname")
	u.Path, u.RawQuery = "/"+name, q.Encode()
	return u.String()
}
