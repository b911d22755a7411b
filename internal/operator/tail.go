package operator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/internal/wait"
	"github.com/jetboxhq/jetbox/outbox"
)

// Skipped is what a Passing tells beside sent, done and dead.
const Skipped = "skipped"

// Passing is one step of a message, as it happens.
type Passing struct {
	At       time.Time  `json:"at"`
	What     string     `json:"what"`
	ID       *uuid.UUID `json:"id,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	Consumer string     `json:"consumer,omitempty"`
	Text     string     `json:"text,omitempty"`
}

// Tail follows messages on both sides: as the relay sends them, and as consumers
// finish them. It reads the newest ledger rows, the inbox's last pages and the
// latest dead letters, and takes no lock that anyone waits for.
type Tail struct {
	conn    *pgx.Conn
	subject string // a pattern; empty is any
	batch   int64
	since   time.Time
	seen    map[end]time.Time
}

// end is a message that a consumer has finished.
type end struct {
	id       uuid.UUID
	consumer string
}

// late is how long a row may take from its clock to its commit.
const late = 5 * time.Second

// recorded is how long the ledger may take to tell that a message was sent: it may
// be done by then.
const recorded = 100 * time.Millisecond

// tailRows bounds what one look shows of each end.
const tailRows = 2000

// NewTail returns a Tail that begins now. Subject may hold wildcards; empty is
// all.
func NewTail(ctx context.Context, conn *pgx.Conn, subject string) (*Tail, error) {
	now, err := Clock(ctx, conn)
	if err != nil {
		return nil, err
	}
	batch, err := outbox.LastBatch(ctx, conn)
	if err != nil {
		return nil, err
	}
	t := &Tail{conn: conn, subject: subject, batch: batch, since: now, seen: map[end]time.Time{}}
	_, err = t.ended(ctx) // those of the seconds before are not news
	return t, err
}

// Next returns what has passed since the last call, in order.
func (t *Tail) Next(ctx context.Context) ([]Passing, error) {
	ended, err := t.ended(ctx)
	if err != nil {
		return nil, err
	}
	wait.Sleep(ctx, recorded)
	list, err := t.sent(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(append(list, ended...), func(p Passing) bool {
		return p.What != Skipped && t.subject != "" && !streams.Covers(t.subject, p.Subject)
	})
	slices.SortStableFunc(list, func(a, b Passing) int { return a.At.Compare(b.At) })
	return list, nil
}

func (t *Tail) sent(ctx context.Context) (list []Passing, err error) {
	rows, last, skipped, err := outbox.ReadSent(ctx, t.conn, t.batch)
	if err != nil {
		return nil, err
	}
	t.batch = last
	if skipped > 0 {
		list = append(list, Passing{At: rows[0].PublishedAt, What: Skipped, Text: fmt.Sprintf("%d sent before: too many to show", skipped)})
	}
	for _, r := range rows {
		list = append(list, Passing{At: r.PublishedAt, What: Sent, ID: &r.MessageID, Subject: r.Subject, Text: fmt.Sprintf("batch %d", r.Batch)})
	}
	return list, nil
}

// ended looks a little into the past again, for rows that were committed after
// later ones.
func (t *Tail) ended(ctx context.Context) ([]Passing, error) {
	after := t.since.Add(-late)
	done, err := inbox.ReadRecent(ctx, t.conn, after, tailRows)
	if err != nil {
		return nil, err
	}
	letters, err := deadletter.List(ctx, t.conn, deadletter.Filter{}, nil, tailRows)
	if err != nil {
		return nil, err
	}
	var list []Passing
	for _, r := range done {
		list = append(list, Passing{At: r.ProcessedAt, What: Done, ID: &r.MessageID, Subject: r.Subject, Consumer: r.Consumer, Text: string(r.Result)})
	}
	for _, l := range letters {
		if l.DiedAt.After(after) {
			list = append(list, Passing{At: l.DiedAt, What: Dead, ID: &l.MessageID, Subject: l.Subject, Consumer: l.Consumer, Text: l.Reason})
		}
	}
	full := len(done) == tailRows
	fresh := t.unseen(list)
	if full && len(fresh) == len(list) {
		fresh = append(fresh, Passing{At: done[tailRows-1].ProcessedAt, What: Skipped, Text: "some that are done: too many to show"})
	}
	return fresh, nil
}

// unseen leaves out what an earlier look has shown, and forgets what no later
// look will meet.
func (t *Tail) unseen(list []Passing) (fresh []Passing) {
	for _, p := range list {
		k := end{*p.ID, p.Consumer}
		if at, known := t.seen[k]; known && at.Equal(p.At) {
			continue
		}
		t.seen[k] = p.At
		fresh = append(fresh, p)
		if p.At.After(t.since) {
			t.since = p.At
		}
	}
	for k, at := range t.seen {
		if at.Before(t.since.Add(-late)) {
			delete(t.seen, k)
		}
	}
	return fresh
}
