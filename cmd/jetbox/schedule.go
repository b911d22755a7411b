package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/outbox"
)

type scheduleCommand struct {
	List   scheduleListCommand   `cmd:"" help:"List messages for later, the next first." example:"jetbox schedule list --subject jobs.email"`
	Cancel scheduleCancelCommand `cmd:"" help:"Cancel messages for later." example:"jetbox schedule cancel 01890a5d-ac96-774b-bcce-b302099a8057"`
}

type scheduleListCommand struct {
	operatorFlags
	Subject string `help:"Only on this subject."`
	Limit   int    `default:"100" help:"At most so many."`
}

func (c scheduleListCommand) Run(ctx context.Context, w world) error {
	if err := atLeastOne(c.Limit); err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		list, err := outbox.ListScheduled(ctx, conn, c.Subject, c.Limit)
		if err != nil {
			return err
		}
		return show(c.operatorFlags, w, "RUN AT\tID\tSUBJECT", list, func(s outbox.Scheduled) string {
			return fmt.Sprintf("%s\t%s\t%s", clock(&s.RunAt), s.ID, s.Subject)
		})
	})
}

type scheduleCancelCommand struct {
	operatorFlags
	IDs []string `arg:"" name:"id" help:"Messages' IDs."`
}

func (c scheduleCancelCommand) Run(ctx context.Context, w world) error {
	ids, err := parseIDs(c.IDs)
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		var errs []error
		for _, id := range ids {
			err := operator.CancelScheduled(ctx, conn, actor(), id)
			if errors.Is(err, outbox.ErrNotScheduled) {
				err = fmt.Errorf("message %s is not scheduled, or no longer", id)
			}
			if err == nil {
				err = c.say(w, map[string]any{"cancelled": id}, "cancelled: "+id.String())
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}
