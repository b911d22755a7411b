package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/wait"
	"github.com/jetboxhq/jetbox/migrations"
	"github.com/jetboxhq/jetbox/outbox"
)

type statusCommand struct {
	databaseFlags
	DataDir string `placeholder:"jetbox-data" help:"Without a database: that of the jetbox up that runs here (JETBOX_DATA_DIR)."`
	JSON    bool   `name:"json" help:"One JSON object."`
	Watch   bool   `help:"Again every second, until Ctrl-C."`
}

// statusReport is the contract of status --json.
type statusReport struct {
	Outbox outboxReport     `json:"outbox"`
	Inbox  []consumerReport `json:"inbox"`
	// Capped says that there are more processed messages than were counted.
	Capped bool `json:"inbox_capped"`
}

type outboxReport struct {
	outbox.Status
	OldestPendingSeconds float64 `json:"oldest_pending_seconds"`
}

type consumerReport struct {
	Consumer    string `json:"consumer"`
	Processed   int64  `json:"processed"`
	Retrying    int64  `json:"retrying"`
	DeadLetters int64  `json:"dead_letters"`
}

func (c statusCommand) Run(ctx context.Context, w world) error {
	db, err := c.database(newEnvironment(w.environ))
	if err != nil {
		return mistakes{err}
	}
	conn, err := connect(ctx, db, 0)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }() // it has only read
	if err := migrations.Check(ctx, conn); err != nil {
		return err
	}
	for {
		if err := c.once(ctx, w, conn); err != nil || !c.Watch || !wait.Sleep(ctx, time.Second) {
			return err
		}
	}
}

// clearScreen moves to the upper left corner and empties a terminal.
const clearScreen = "\x1b[H\x1b[2J"

func (c statusCommand) once(ctx context.Context, w world, conn *pgx.Conn) error {
	r, err := readStatus(ctx, conn)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(w.stdout).Encode(r)
	}
	if c.Watch {
		_, _ = io.WriteString(w.stdout, clearScreen)
	}
	return r.print(w.stdout, time.Now())
}

// database falls back on what a running jetbox up has left in its directory.
func (c statusCommand) database(env environment) (*pgx.ConnConfig, error) {
	if !c.named(env) {
		url, err := readNote(dataDir(c.DataDir, env))
		if err != nil {
			return nil, err
		}
		env["DATABASE_URL"] = url
	}
	cfg, err := c.config(env, "status")
	if err != nil {
		return nil, err
	}
	return cfg.ConnConfig, nil
}

func readStatus(ctx context.Context, conn *pgx.Conn) (statusReport, error) {
	out, err := outbox.ReadStatus(ctx, conn)
	if err != nil {
		return statusReport{}, err
	}
	in, err := inbox.ReadStatus(ctx, conn)
	if err != nil {
		return statusReport{}, err
	}
	r := statusReport{
		Outbox: outboxReport{out, out.OldestPendingAge.Seconds()},
		Inbox:  make([]consumerReport, 0, len(in.Consumers)),
		Capped: in.Capped,
	}
	for _, c := range in.Consumers {
		r.Inbox = append(r.Inbox, consumerReport{c.Consumer, c.Processed, c.Retrying, c.Dead})
	}
	return r, nil
}

func (r statusReport) print(w io.Writer, now time.Time) error {
	o := r.Outbox
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][]string{
		{"pending", count(o.Pending, o.Estimated)},
		{"oldest pending", age(o.OldestPending != nil, o.OldestPendingAge)},
		{"scheduled", count(o.Scheduled, o.Scheduled >= outbox.PendingCap)},
		{"published", fmt.Sprint(o.Published)},
		{"last batch", ago(o.LastBatchAt, now)},
		{"leader", leader(o.Status)},
	} {
		_, _ = fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	_, _ = fmt.Fprintln(table, "\nCONSUMER\tPROCESSED\tRETRYING\tDEAD LETTERS")
	for _, c := range r.Inbox {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", c.Consumer, count(c.Processed, r.Capped), c.Retrying, c.DeadLetters)
	}
	return table.Flush()
}

func count(n int64, more bool) string {
	if more {
		return fmt.Sprintf("about %d", n)
	}
	return fmt.Sprint(n)
}

func age(known bool, d time.Duration) string {
	if !known {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}

func ago(at *time.Time, now time.Time) string {
	if at == nil {
		return "never"
	}
	return max(0, now.Sub(*at)).Round(time.Millisecond).String() + " ago"
}

func leader(s outbox.Status) string {
	if s.Leader == "" {
		return "none: no relay runs"
	}
	return fmt.Sprintf("%s (epoch %d)", s.Leader, s.Epoch)
}
