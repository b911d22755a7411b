package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/operator"
)

type cancelInput struct {
	ID string `path:"id" doc:"The job's ID, a UUID"`
}

type cancelOutput struct {
	Body operator.Status
}

func (a *API) cancel(ctx context.Context, in *cancelInput) (*cancelOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	work, cancel := withTimeout(ctx)
	defer cancel()
	err = operator.Cancel(work, a.db, owner(ctx), id, a.cfg.Consumers...)
	if e, ok := errors.AsType[*operator.StateError](err); ok {
		return nil, cannotCancel(e.Status.Status)
	}
	if errors.Is(err, inbox.ErrForgotten) {
		return nil, problem(http.StatusConflict, "job_too_old", "the job's ID is older than the inbox remembers: no worker will run it")
	}
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	s, err := a.status(ctx, id)
	return &cancelOutput{Body: s}, err
}

func cannotCancel(state string) *Problem {
	if state == operator.Unknown {
		return problem(http.StatusNotFound, "not_found", "no job has this ID, or it is so old that nothing remembers it")
	}
	p := problem(http.StatusConflict, "job_has_ended", "the job is "+state+": only one that has not ended can be cancelled")
	p.State = state
	return p
}
