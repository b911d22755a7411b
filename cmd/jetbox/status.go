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
	"github.com/jetboxhq/jetbox/outbox"
)

type statusCommand struct {
	operatorFlags
	consumerFlags
	Watch bool `help:"Again every second, until Ctrl-C."`
}

// statusReport is the contract of status --json.
type statusReport struct {
	Outbox outboxReport     `json:"outbox"`
	Inbox  []consumerReport `json:"inbox"`
	// Capped says that there are more processed messages than were counted.
	Capped bool         `json:"inbox_capped"`
	Broker brokerReport `json:"broker"`
}

type outboxReport struct {
	outbox.Status
	OldestPendingSeconds float64 `json:"oldest_pending_seconds"`
}

type consumerReport struct {
	Consumer           string  `json:"consumer"`
	Processed          int64   `json:"processed"`
	ProcessedPerSecond float64 `json:"processed_per_second"` // the last minute's mean
	Retrying           int64   `json:"retrying"`
	DeadLetters        int64   `json:"dead_letters"`
}

func (c statusCommand) Run(ctx context.Context, w world) error {
	place, err := c.place(w, c.DataDir)
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		nc, js, away := place.open()
		if nc != nil {
			defer nc.Close()
		}
		for {
			err := c.once(ctx, w, conn, place.report(ctx, js, away))
			if c.Watch && ctx.Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			if err != nil || !c.Watch {
				return err
			}
			wait.Sleep(ctx, time.Second)
		}
	})
}

// clearScreen moves to the upper left corner and empties a terminal.
const clearScreen = "\x1b[H\x1b[2J"

func (c statusCommand) once(ctx context.Context, w world, conn *pgx.Conn, broker brokerReport) error {
	r, err := readStatus(ctx, conn, broker)
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

func readStatus(ctx context.Context, conn *pgx.Conn, broker brokerReport) (statusReport, error) {
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
		Broker: broker,
	}
	for _, c := range in.Consumers {
		r.Inbox = append(r.Inbox, consumerReport{c.Consumer, c.Processed, c.PerSecond, c.Retrying, c.Dead})
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
		{"published", fmt.Sprintf("%d, %s/s in the last minute", o.Published, rate(o.PublishedPerSecond))},
		{"last batch", ago(o.LastBatchAt, now)},
		{"relay", relayState(o.Status)},
		{"workers", r.Broker.workers()},
	} {
		_, _ = fmt.Fprintln(table, strings.Join(line, "\t"))
	}
	_, _ = fmt.Fprintln(table, "\nCONSUMER\tPROCESSED\tPER SECOND\tRETRYING\tDEAD LETTERS")
	for _, c := range r.Inbox {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\n", c.Consumer, count(c.Processed, r.Capped), rate(c.ProcessedPerSecond), c.Retrying, c.DeadLetters)
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

// rate keeps small rates from looking like none.
func rate(perSecond float64) string { return fmt.Sprintf("%.2f", perSecond) }

func relayState(s outbox.Status) string {
	state := "none runs"
	if s.Leader != "" {
		state = fmt.Sprintf("%s leads (epoch %d)", s.Leader, s.Epoch)
	}
	if s.PausedUntil != nil {
		state += ", paused until " + clock(s.PausedUntil) + " (jetbox resume relay)"
	}
	return state
}
