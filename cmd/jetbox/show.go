package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
)

type showCommand struct {
	operatorFlags
	ID string `arg:"" help:"The message's ID, a UUID."`
}

func (c showCommand) Run(ctx context.Context, w world) error {
	ids, err := parseIDs([]string{c.ID})
	if err != nil {
		return err
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		story, err := operator.ReadStory(ctx, conn, ids[0])
		if err != nil {
			return err
		}
		status, err := operator.ReadStatus(ctx, conn, ids[0])
		if err != nil {
			return err
		}
		if status.Status == operator.Unknown {
			return fmt.Errorf("no table knows a message %s", c.ID)
		}
		if !c.JSON {
			_, _ = fmt.Fprintf(w.stdout, "%s is %s\n\n", c.ID, status.Status)
		}
		return show(c.operatorFlags, w, "TIME\tWHAT\tDETAILS", story, func(m operator.Moment) string {
			return fmt.Sprintf("%s\t%s\t%s", clock(&m.At), m.What, harmless(m.Text))
		})
	})
}

func parseIDs(texts []string) ([]uuid.UUID, error) {
	ids := make([]uuid.UUID, len(texts))
	for i, text := range texts {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, mistakes{fmt.Errorf("%q is not a message's ID, such as 01890a5d-ac96-774b-bcce-b302099a8057", text)}
		}
		ids[i] = id
	}
	return ids, nil
}
