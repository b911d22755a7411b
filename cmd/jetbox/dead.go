package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
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
	if err := atLeastOne(c.Limit); err != nil {
		return err
	}
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
	list, err := deadletter.List(ctx, conn, c.filter(), nil, c.Limit)
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

// deadChange is what becomes of letters: step changes some of those that fits
// leaves of a choice.
type deadChange struct {
	verb string
	fits func(context.Context, operator.DB, deadletter.Filter) (deadletter.Filter, error)
	step func(context.Context, operator.DB, string, deadletter.Filter, int) (operator.Outcome, error)
}

// change runs d until it has met every letter that has died so far.
func (c deadChoice) change(ctx context.Context, w world, d deadChange) error {
	f, err := c.choose()
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		if f.Before, err = operator.Clock(ctx, conn); err != nil {
			return err
		}
		strangers, err := c.strangers(ctx, conn, f)
		if err != nil {
			return err
		}
		if len(strangers) < len(f.IDs) || len(f.IDs) == 0 {
			err = c.run(ctx, w, conn, d, f)
		}
		return errors.Join(append(strangers, err)...)
	})
}

// run changes the letters that f chooses, or says how many it would change.
func (c deadChoice) run(ctx context.Context, w world, conn *pgx.Conn, d deadChange, f deadletter.Filter) error {
	if c.DryRun {
		out, err := d.foresee(ctx, conn, f)
		if err != nil {
			return err
		}
		return c.report(w, out, fmt.Sprintf("would %s %d", d.verb, out.Messages), "their IDs are older than the inbox remembers")
	}
	out, err := d.repeat(ctx, w, conn, f)
	if err != nil {
		return err
	}
	return c.report(w, out, fmt.Sprintf("%s: %d", d.verb, out.Messages), "refused above, or their IDs are older than the inbox remembers")
}

// strangers is an error for each message that was named and that f does not find:
// an ID with a slip in it must not look as if it had been dealt with.
func (c deadChoice) strangers(ctx context.Context, conn *pgx.Conn, f deadletter.Filter) (errs []error, err error) {
	for _, id := range f.IDs {
		one := f
		one.IDs = []uuid.UUID{id}
		n, err := deadletter.CountMatching(ctx, conn, one)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			errs = append(errs, fmt.Errorf("message %s is no dead letter%s", id, c.narrowed()))
		}
	}
	return errs, nil
}

// narrowed ends a sentence about a letter that flags may have left out.
func (c deadChoice) narrowed() string {
	if c.deadFilter == (deadFilter{}) {
		return ""
	}
	return " that --consumer, --subject and --reason leave"
}

// deadChanged is what came of a change, or would.
type deadChanged struct {
	Action   string `json:"action"`
	DryRun   bool   `json:"dry_run"`
	Messages int64  `json:"messages"`
	StayDead int64  `json:"stay_dead"` // letters
}

func (c deadChoice) report(w world, out deadChanged, line, why string) error {
	err := c.say(w, out, line)
	if out.StayDead > 0 && err == nil {
		_, err = fmt.Fprintf(w.stderr, "%d stay dead: %s\n", out.StayDead, why)
	}
	return err
}

// foresee says how many of the letters that f chooses d would change.
func (d deadChange) foresee(ctx context.Context, conn *pgx.Conn, f deadletter.Filter) (out deadChanged, err error) {
	n, err := deadletter.CountMatching(ctx, conn, f)
	if err != nil {
		return out, err
	}
	fit, err := d.fits(ctx, conn, f)
	if err != nil {
		return out, err
	}
	fits, err := deadletter.CountMatching(ctx, conn, fit)
	return deadChanged{Action: d.verb, DryRun: true, Messages: fits, StayDead: n - fits}, err
}

// repeat repeats d's step until it finds nothing more, and says what came of it.
func (d deadChange) repeat(ctx context.Context, w world, conn *pgx.Conn, f deadletter.Filter) (done deadChanged, err error) {
	done.Action = d.verb
	for more := true; more; {
		out, err := d.step(ctx, conn, actor(), f, batch)
		if err != nil {
			return done, err
		}
		done.Messages += int64(len(out.Messages))
		for _, r := range out.Refused {
			_, _ = fmt.Fprintf(w.stderr, "%s stays dead: %s\n", r.ID, r.Rule)
			f.Except = append(f.Except, r.ID)
		}
		more = len(out.Messages)+len(out.Refused) > 0
	}
	f.Except = nil // they are among those that stay
	done.StayDead, err = deadletter.CountMatching(ctx, conn, f)
	return done, err
}

type deadRedriveCommand struct{ deadChoice }

func (c deadRedriveCommand) Run(ctx context.Context, w world) error {
	return c.change(ctx, w, deadChange{"redrive", operator.Redrivable, operator.Redrive})
}

type deadDiscardCommand struct {
	deadChoice
	Yes bool `help:"Really: their payloads are gone."`
}

func (c deadDiscardCommand) Run(ctx context.Context, w world) error {
	if !c.Yes && !c.DryRun {
		return mistakes{errors.New("dead discard removes payloads for good: add --yes if you mean it, or --dry-run to look")}
	}
	every := func(_ context.Context, _ operator.DB, f deadletter.Filter) (deadletter.Filter, error) { return f, nil }
	return c.change(ctx, w, deadChange{"discard", every, operator.Discard})
}
