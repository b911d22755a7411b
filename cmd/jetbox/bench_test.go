package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/jetboxhq/jetbox/integration/testenv"
)

// figures are the fields that scripts rely on.
type figures struct {
	Bench      string   `json:"bench"`
	Kind       string   `json:"kind"`
	Phase      string   `json:"phase"`
	Messages   int      `json:"messages"`
	Rate       float64  `json:"rate"`
	Ratio      float64  `json:"ratio"`
	LimitRate  float64  `json:"limit_rate"`
	SingleRate float64  `json:"single_rate"`
	WAL        *float64 `json:"wal_bytes_per_message"`
	CPU        float64  `json:"cpu_us_per_message"`
	DeadTuples *int64   `json:"dead_tuples"`
	Route      string   `json:"route"`
	Effects    int      `json:"effects"`
	Doubled    *int     `json:"doubled"`
	P50        float64  `json:"p50_ms"`
	P99        float64  `json:"p99_ms"`
	Floor      float64  `json:"floor_ms"`
	History    int      `json:"history"`
	Held       bool     `json:"held_snapshot"`
	Flat       float64  `json:"flat"`
	Clients    []struct {
		Connections int     `json:"connections"`
		TPS         float64 `json:"tps"`
		ClassicTPS  float64 `json:"classic_tps"`
		Ratio       float64 `json:"ratio"`
	} `json:"clients"`
}

func measured(t *testing.T, v vars, args ...string) []figures {
	t.Helper()
	v["JETBOX_IS_THIS_TEST"] = "1" // for the processes of relay and NATS
	code, stdout, stderr := invoke(t, v, append([]string{"bench"}, args...)...)
	if code != exitOK {
		t.Fatalf("bench %v = %d:\n%s", args, code, stderr)
	}
	var all []figures
	for line := range strings.Lines(stdout) {
		var f figures
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("stdout has a line that is no JSON: %q", line)
		}
		all = append(all, f)
	}
	return all
}

func TestBench_MeasuresAndCleansUp(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	db := testenv.EmptyDatabase(t)
	on := func() vars { return vars{"DATABASE_URL": dsn(db), "NATS_URL": testenv.NATSURL(t)} }
	t.Run("benchmarks", func(t *testing.T) {
		t.Run("relay", func(t *testing.T) { t.Parallel(); checkRelay(t, vars{}) }) // own servers: on a shared one, WAL is everybody's
		t.Run("worker", func(t *testing.T) { t.Parallel(); checkWorker(t, on()) })
		t.Run("e2e", func(t *testing.T) { t.Parallel(); checkE2E(t, on()) })
		t.Run("insert", func(t *testing.T) { t.Parallel(); checkInsert(t, on()) })
		t.Run("grow", func(t *testing.T) { t.Parallel(); checkGrow(t, on()) })
	})
	wantNothingLeft(t, db)
}

func checkRelay(t *testing.T, v vars) {
	plot := filepath.Join(t.TempDir(), "out.svg")
	all := measured(t, v, "relay", "--json", "--messages", "3000", "--rounds", "2", "--plot", plot)
	if len(all) != 1 {
		t.Fatalf("%d lines, want 1", len(all))
	}
	f := all[0]
	if f.Bench != "relay" || f.Messages != 3000 || f.Rate <= 0 || f.LimitRate <= 0 || f.Ratio <= 0 || f.CPU <= 0 || f.Route == "" {
		t.Errorf("relay = %+v, want every figure", f)
	}
	if f.WAL == nil || f.DeadTuples == nil {
		t.Fatalf("relay = %+v, want WAL and dead tuples", f)
	}
	if *f.WAL > 100 { // an UPDATE a message would write hundreds
		t.Errorf("WAL = %.1f bytes a message, want next to none", *f.WAL)
	}
	if *f.DeadTuples != 0 {
		t.Errorf("dead tuples = %d, want 0", *f.DeadTuples)
	}
	if svg, err := os.ReadFile(plot); err != nil || !strings.HasPrefix(string(svg), "<svg") {
		t.Errorf("plot = %.20q, %v, want an SVG", svg, err)
	}
}

func checkWorker(t *testing.T, v vars) {
	all := measured(t, v, "worker", "--json", "--messages", "1000", "--rounds", "2")
	var kinds []string
	for _, f := range all {
		kinds = append(kinds, f.Kind)
		want := 2 * 1000
		if f.Kind == "single" {
			want = 2 * 200
		}
		if f.Effects != want || f.Doubled == nil || *f.Doubled != 0 || f.Rate <= 0 || f.SingleRate <= 0 || f.Ratio <= 0 {
			t.Errorf("worker = %+v, want %d effects and every figure", f, want)
		}
	}
	if got, want := strings.Join(kinds, " "), "single tx batch sql"; got != want {
		t.Errorf("kinds = %s, want %s", got, want)
	}
}

func checkE2E(t *testing.T, v vars) {
	all := measured(t, v, "e2e", "--json", "--messages", "1000", "--rounds", "1", "--duration", "1s", "--rate", "100")
	if len(all) != 3 {
		t.Fatalf("%d lines, want two of saturation and one of latency", len(all))
	}
	for i, want := range []int{1000, 200, 100} {
		if f := all[i]; f.Effects != want || f.Doubled == nil || *f.Doubled != 0 || f.Rate <= 0 {
			t.Errorf("e2e %s = %+v, want %d effects, each once", f.Phase, f, want)
		}
	}
	if f := all[2]; f.Phase != "latency" || f.P50 < f.Floor/2 || f.P99 < f.P50 || f.P50 <= 0 || f.Floor <= 0 {
		t.Errorf("latency = %+v, want 0 < floor, p50 <= p99", f)
	}
}

func checkInsert(t *testing.T, v vars) {
	all := measured(t, v, "insert", "--json", "--rounds", "1", "--duration", "200ms")
	if len(all) != 1 || len(all[0].Clients) != 3 {
		t.Fatalf("insert = %+v, want one line with three numbers of connections", all)
	}
	for i, conns := range []int{1, 8, 32} {
		c := all[0].Clients[i]
		if c.Connections != conns || c.TPS <= 0 || c.ClassicTPS <= 0 || c.Ratio < all[0].Ratio {
			t.Errorf("client = %+v, want %d connections and no ratio under %v", c, conns, all[0].Ratio)
		}
	}
}

func checkGrow(t *testing.T, v vars) {
	all := measured(t, v, "grow", "--json", "--messages", "1000", "--rounds", "1", "--history", "0,2000")
	if len(all) != 3 {
		t.Fatalf("%d lines, want one without history, one with and one under a snapshot", len(all))
	}
	for i, want := range []int{0, 2000, 2000} {
		f := all[i]
		if f.History != want || f.Held != (i == 2) || f.Rate <= 0 || f.Flat <= 0 || *f.DeadTuples != 0 {
			t.Errorf("grow = %+v, want %d rows of history and every figure", f, want)
		}
	}
}

// wantNothingLeft is patient: another benchmark may run on a shared server.
func wantNothingLeft(t *testing.T, db *pgx.ConnConfig) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	testenv.Eventually(t, "no database of a benchmark", func() bool {
		var n int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname LIKE 'jetbox\_bench\_%'`).Scan(&n)
		return err == nil && n == 0
	})
	js, err := jetstream.New(testenv.NATS(t))
	if err != nil {
		t.Fatal(err)
	}
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		if strings.HasPrefix(name, "JETBOX_BENCH") {
			t.Errorf("stream %s is left", name)
		}
	}
	if err := names.Err(); err != nil {
		t.Error(err)
	}
}

func TestBench_BringsItsOwnServersAndASummary(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Postgres of its own")
	}
	own := vars{"JETBOX_IS_THIS_TEST": "1"} // for the process of NATS
	code, stdout, stderr := invoke(t, own, "bench", "insert", "--rounds", "1", "--duration", "100ms")
	if code != exitOK {
		t.Fatalf("bench insert = %d:\n%s", code, stderr)
	}
	for _, want := range []string{"cores", "postgres: ", "fsync on", "nats: ", "32 connections"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("summary lacks %q:\n%s", want, stdout)
		}
	}
}

func TestBench_NamesEveryMistake(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := invoke(t, vars{}, "bench", "relay", "--rounds=-1", "--size=1", "--database-url", "postgres://u:secret@h/db")
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "rounds") || !strings.Contains(stderr, "size") ||
		!strings.Contains(stderr, "--database-url") || strings.Contains(stderr, "secret") {
		t.Errorf("bench = %d %q %q, want %d, both mistakes and no secret", code, stdout, stderr, exitUsage)
	}
}
