package doctor_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
	"github.com/jetboxhq/jetbox/internal/doctor"
)

// pooler answers as PgBouncer does: with a process ID of its own making.
type pooler struct{ io.Reader }

// keyData begins the message that carries the process ID.
const keyData = "K\x00\x00\x00\x0c"

func (p pooler) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	for i := 0; i+len(keyData) < n; i++ {
		if string(b[i:i+len(keyData)]) == keyData {
			b[i+len(keyData)+3] ^= 1
		}
	}
	return n, err
}

func TestPostgres_FindsAPoolerInBetween(t *testing.T) {
	t.Parallel()
	db := testenv.Database(t).Config().ConnConfig.Copy()
	db.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend { return pgproto3.NewFrontend(pooler{r}, w) }
	if got := checks(examine(t, db, doctor.Config{})); !slices.Equal(got, []string{"pooler"}) {
		t.Errorf("found %v, want the pooler", got)
	}
}

// A server with a standby.signal waits for a primary, and answers queries.
func TestPostgres_FindsAStandby(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := testenv.OwnPostgres(t, dir).Stop(); err != nil {
		t.Fatal(err)
	}
	data, err := filepath.Glob(filepath.Join(dir, "*", "PG_VERSION"))
	if err != nil || len(data) != 1 {
		t.Fatalf("data = %v, %v, want one directory", data, err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(data[0]), "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig(testenv.OwnPostgres(t, dir).URL())
	if err != nil {
		t.Fatal(err)
	}
	found, err := doctor.Postgres(t.Context(), connect(t, cfg), doctor.Config{}, false)
	if err != nil || !slices.Contains(checks(found), "standby") || doctor.ExitCode(found) != 2 {
		t.Errorf("found %v, %v, want the standby", found, err)
	}
}

func TestNATS_FindsAStreamWithOneCopyInACluster(t *testing.T) {
	t.Parallel()
	servers := testenv.Cluster(t)
	nc, js, cfg := jets(t, servers[0].ClientURL())
	testenv.Eventually(t, "the cluster to make the stream", func() bool {
		_, err := js.CreateStream(t.Context(), cfg.Streams[0])
		return err == nil
	})
	if found, err := doctor.NATS(t.Context(), nc, cfg); err != nil || !slices.Equal(checks(found), []string{"replicas"}) {
		t.Errorf("found %v, %v, want replicas", found, err)
	}
	want := cfg.Streams[0]
	want.Replicas = 3
	testenv.Eventually(t, "three copies", func() bool {
		_, err := js.UpdateStream(t.Context(), want)
		return err == nil
	})
	cfg.Streams = []jetstream.StreamConfig{want}
	if found, err := doctor.NATS(t.Context(), nc, cfg); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v, want nothing", found, err)
	}
}
