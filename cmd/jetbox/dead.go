package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/deadletter"
	"github.com/jetboxhq/jetbox/internal/operator"
)

type deadCommand struct {
	List    deadListCommand    `cmd:"" help:"List dead letters, those of one error together." example:"jetbox dead list --subject jobs.email"`
	Show    deadShowCommand    `cmd:"" help:"Show the letters of one message, with payload and every error." example:"jetbox dead show 01890a5d-ac96-774b-bcce-b302099a8057"`
	Redrive deadRedriveCommand `cmd:"" help:"Send dead letters out again." example:"jetbox dead redrive --reason timeout --dry-run"`
	Discard deadDiscardCommand `cmd:"" help:"Remove dead letters for good." example:"jetbox dead discard --subject jobs.old --yes"`
}

type deadFilter struct {
	Consumer string `help:"Only of this consumer; $$relay for what could not be published."`
	Subject  string `help:"Only on this subject."`
	Reason   string `help:"Only with this text in the reason."`
}

func (f deadFilter) filter() deadletter.Filter {
	return deadletter.Filter{Consumer: f.Consumer, Subject: f.Subject, Reason: f.Reason}
}

type deadListCommand struct {
	operatorFlags
	deadFilter
	Each  bool `help:"One line a letter instead of one an error."`
	Limit int  `default:"100" help:"With --each, at most so many, the latest."`
}

func (c deadListCommand) Run(ctx context.Context, w world) error {
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		if c.Each {
			return c.each(ctx, w, conn)
		}
		groups, err := deadletter.Groups(ctx, conn, c.filter())
		if err != nil {
			return err
		}
		return show(c.operatorFlags, w, "LETTERS\tCONSUMER\tSUBJECT\tLAST\tEXAMPLE\tREASON", groups, func(g deadletter.Group) string {
			return fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s", g.Letters, g.Consumer, g.Subject, clock(&g.Last), g.Example, harmless(g.Reason))
		})
	})
}

func (c deadListCommand) each(ctx context.Context, w world, conn *pgx.Conn) error {
	list, err := deadletter.List(ctx, conn, c.filter(), nil, max(c.Limit, 1))
	if err != nil {
		return err
	}
	return show(c.operatorFlags, w, "ID\tCONSUMER\tSUBJECT\tDIED\tATTEMPTS\tREASON", list, func(l deadletter.Summary) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s", l.MessageID, l.Consumer, l.Subject, clock(&l.DiedAt), l.Attempts, harmless(l.Reason))
	})
}

type deadShowCommand struct {
	operatorFlags
	ID string `arg:"" help:"The message's ID, a UUID."`
}

func (c deadShowCommand) Run(ctx context.Context, w world) error {
	ids, err := parseIDs([]string{c.ID})
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		letters, err := deadletter.Show(ctx, conn, ids[0])
		if err != nil {
			return err
		}
		if len(letters) == 0 {
			return fmt.Errorf("message %s is no dead letter", c.ID)
		}
		return show(c.operatorFlags, w, "CONSUMER\tDETAILS", letters, describe)
	})
}

func describe(l deadletter.Full) string {
	text := fmt.Sprintf("%s\tsubject %s, died %s: %s", l.Consumer, l.Subject, clock(&l.DiedAt), harmless(l.Reason))
	for _, e := range l.Errors {
		text += fmt.Sprintf("\n\tattempt %d, %s: %s", e.Attempt, clock(&e.At), harmless(e.Error))
	}
	if l.Headers != nil {
		text += "\n\theaders " + harmless(string(l.Headers))
	}
	if l.Payload == nil {
		return text + fmt.Sprintf("\n\tpayload of %d bytes that are not JSON", len(l.PayloadBytes))
	}
	return text + "\n\tpayload " + harmless(string(l.Payload))
}

// deadChoice is which letters a change is about. None at all must be said.
type deadChoice struct {
	operatorFlags
	deadFilter
	IDs    []string `arg:"" optional:"" name:"id" help:"Messages' IDs."`
	All    bool     `help:"Every letter that the filters leave, or every letter."`
	DryRun bool     `help:"Only say how many it would be."`
}

func (c deadChoice) choose() (deadletter.Filter, error) {
	f := c.filter()
	ids, err := parseIDs(c.IDs)
	if err != nil {
		return f, err
	}
	f.IDs = ids
	if len(ids) == 0 && c.deadFilter == (deadFilter{}) && !c.All {
		return f, mistakes{errors.New("name messages, filter with --consumer, --subject or --reason, or add --all")}
	}
	return f, nil
}

// batch is how many letters change in one transaction: few enough that large
// payloads fit into memory.
const batch = 100

// change runs step until it has met every letter that has died so far.
func (c deadChoice) change(ctx context.Context, w world, verb string, step func(*pgx.Conn, deadletter.Filter) (operator.Outcome, error)) error {
	f, err := c.choose()
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		if f.Before, err = operator.Clock(ctx, conn); err != nil {
			return err
		}
		if c.DryRun {
			n, err := deadletter.CountMatching(ctx, conn, f)
			if err == nil {
				_, err = fmt.Fprintf(w.stdout, "would %s %d\n", verb, n)
			}
			return err
		}
		if err := repeat(w, verb, f, func(f deadletter.Filter) (operator.Outcome, error) { return step(conn, f) }); err != nil {
			return err
		}
		n, err := deadletter.CountMatching(ctx, conn, f)
		if err == nil && n > 0 {
			_, err = fmt.Fprintf(w.stderr, "%d stay dead: refused above, or their IDs are older than the inbox remembers\n", n)
		}
		return err
	})
}

// repeat repeats step until it finds nothing more, and says what came of it.
func repeat(w world, verb string, f deadletter.Filter, step func(deadletter.Filter) (operator.Outcome, error)) error {
	total := 0
	for more := true; more; {
		out, err := step(f)
		if err != nil {
			return err
		}
		total += len(out.Messages)
		for _, r := range out.Refused {
			_, _ = fmt.Fprintf(w.stderr, "%s stays dead: %s\n", r.ID, r.Rule)
			f.Except = append(f.Except, r.ID)
		}
		more = len(out.Messages)+len(out.Refused) > 0
	}
	_, err := fmt.Fprintf(w.stdout, "%s: %d\n", verb, total)
	return err
}

type deadRedriveCommand struct{ deadChoice }

func (c deadRedriveCommand) Run(ctx context.Context, w world) error {
	return c.change(ctx, w, "redrive", func(conn *pgx.Conn, f deadletter.Filter) (operator.Outcome, error) {
		return operator.Redrive(ctx, conn, actor(), f, batch)
	})
}

type deadDiscardCommand struct {
	deadChoice
	Yes bool `help:"Really: their payloads are gone."`
}

func (c deadDiscardCommand) Run(ctx context.Context, w world) error {
	if !c.Yes && !c.DryRun {
		return mistakes{errors.New("dead discard removes payloads for good: add --yes if you mean it, or --dry-run to look")}
	}
	return c.change(ctx, w, "discard", func(conn *pgx.Conn, f deadletter.Filter) (operator.Outcome, error) {
		return operator.Discard(ctx, conn, actor(), f, batch)
	})
}
