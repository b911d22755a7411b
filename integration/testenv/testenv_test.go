package testenv

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { Main(m) }

func TestDatabase_BelongsToOneTest(t *testing.T) {
	t.Parallel()
	a, b := Database(t), Database(t)
	if _, err := a.Exec(t.Context(), `INSERT INTO jetbox.outbox (subject, payload) VALUES ('jobs.a', '1')`); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var n int
	if err := b.QueryRow(t.Context(), `SELECT count(*) FROM jetbox.outbox`).Scan(&n); err != nil || n != 0 {
		t.Errorf("count in the other database = %d, %v, want 0", n, err)
	}
	_ = start
}

func TestStream_BelongsToOneTest(t *testing.T) {
	t.Parallel()
	cfg := Stream(t, jetstream.StreamConfig{})
	js, err := jetstream.New(NATS(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), cfg.Subjects[0][:len(cfg.Subjects[0])-1]+"x", nil); err != nil {
		t.Error(err)
	}
}
