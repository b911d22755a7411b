package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/outbox"
)

// Moment is one thing that happened to a message.
type Moment struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Text string    `json:"text"`
}

// ReadStory tells a message's life in order, as far as the tables remember it.
func ReadStory(ctx context.Context, db *pgx.Conn, id uuid.UUID) ([]Moment, error) {
	rows, err := outbox.ReadTrace(ctx, db, id)
	if err != nil {
		return nil, err
	}
	runs, err := inbox.ReadTrace(ctx, db, id)
	if err != nil {
		return nil, err
	}
	letters, err := deadletter.Show(ctx, db, id)
	if err != nil {
		return nil, err
	}
	actions, err := History(ctx, db, id)
	if err != nil {
		return nil, err
	}
	waits, err := scheduled(ctx, db, id)
	if err != nil {
		return nil, err
	}
	story := slices.Concat(waits, published(rows), processed(runs, actions), acted(actions))
	for _, l := range letters {
		story = append(story, died(past{l.Reason, l.Errors, l.DiedAt}, l.Consumer)...)
	}
	slices.SortStableFunc(story, func(a, b Moment) int { return a.At.Compare(b.At) })
	return causal(story), nil
}

const scheduledSQL = `SELECT run_at, subject FROM jetbox.scheduled WHERE message_id = $1`

// scheduled is when the message will be enqueued, while that lies ahead.
func scheduled(ctx context.Context, db *pgx.Conn, id uuid.UUID) ([]Moment, error) {
	rows, err := db.Query(ctx, scheduledSQL, id)
	if err != nil {
		return nil, fmt.Errorf("operator: scheduled: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Moment, err error) {
		m.What = "scheduled"
		err = row.Scan(&m.At, &m.Text)
		m.Text = "for this time on " + m.Text
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("operator: scheduled: %w", err)
	}
	return list, nil
}

// causal puts what a worker did behind the publishing that it needs: on a busy
// machine a relay may hear from the broker later than the worker.
func causal(story []Moment) []Moment {
	out := false
	for i, m := range story {
		switch m.What {
		case "inserted":
			out = false
		case "published":
			out = true
		case "done", "failed":
			later := slices.IndexFunc(story[i:], func(m Moment) bool { return m.What == "published" })
			if !out && later > 0 {
				m = story[i+later]
				copy(story[i+1:], story[i:i+later])
				story[i], out = m, true
			}
		}
	}
	return story
}

func published(rows []outbox.Trace) (list []Moment) {
	for _, r := range rows {
		text := fmt.Sprintf("on %s as outbox row %d", r.Subject, r.OutboxID)
		if r.Key != nil {
			text += ", key " + *r.Key
		}
		list = append(list, Moment{r.CreatedAt, "inserted", text})
		if r.Batch == nil {
			continue
		}
		text = fmt.Sprintf("in batch %d", *r.Batch)
		for name, s := range r.Streams {
			text += fmt.Sprintf(", stream %s then at sequence %d", name, s.LastSeq)
		}
		list = append(list, Moment{*r.PublishedAt, "published", text})
	}
	return list
}

func processed(runs []inbox.Trace, actions []Action) (list []Moment) {
	withdrawn := slices.ContainsFunc(actions, func(a Action) bool { return a.Action == ActionCancel || a.Action == ActionDiscard })
	for _, r := range runs {
		switch {
		case r.Attempt > 0:
			list = append(list, failure(r.At, r.Attempt, r.Consumer, r.Error))
		case withdrawn && r.Result == nil: // its place in the inbox is the withdrawal's
		case r.Result == nil:
			list = append(list, Moment{r.At, "done", "by " + r.Consumer + ", without a result"})
		default:
			list = append(list, Moment{r.At, "done", "by " + r.Consumer + ", result " + string(r.Result)})
		}
	}
	return list
}

// past is what an action's details keep of a letter.
type past struct {
	Reason string               `json:"reason"`
	Errors []deadletter.Attempt `json:"errors"`
	DiedAt time.Time            `json:"died_at"`
}

func acted(actions []Action) (list []Moment) {
	for _, a := range actions {
		var p past
		if json.Unmarshal(a.Details, &p) == nil && !p.DiedAt.IsZero() && a.Consumer != nil {
			list = append(list, died(p, *a.Consumer)...)
		}
		list = append(list, Moment{a.At, a.Action, "by " + a.Actor})
	}
	return list
}

func died(p past, consumer string) []Moment {
	var list []Moment
	for _, e := range p.Errors {
		list = append(list, failure(e.At, e.Attempt, consumer, e.Error))
	}
	return append(list, Moment{p.DiedAt, "dead", "for " + consumer + ": " + p.Reason})
}

func failure(at time.Time, attempt int, consumer, text string) Moment {
	first, _, _ := strings.Cut(text, "\n")
	return Moment{at, "failed", fmt.Sprintf("attempt %d by %s: %s", attempt, consumer, first)}
}
