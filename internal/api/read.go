package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/internal/operator"
)

type getInput struct {
	ID     string `path:"id" doc:"The job's ID, a UUID"`
	Wait   string `query:"wait" doc:"Answer when the job has ended, or after this time, such as 30s; at most a minute."`
	Prefer string `header:"Prefer" doc:"wait=30 is the same in seconds."`
}

type getOutput struct {
	Applied string `header:"Preference-Applied"`
	Body    operator.Status
}

func (a *API) get(ctx context.Context, in *getInput) (*getOutput, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	out := &getOutput{}
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	if preferred := preferredWait(in.Prefer); wait == 0 && preferred > 0 {
		wait, out.Applied = preferred, fmt.Sprintf("wait=%d", int(preferred.Seconds()))
	}
	out.Body, err = a.statusAfter(ctx, id, wait)
	return out, err
}

// preferredWait is the wait of a Prefer header. A preference that cannot be
// read is ignored, as RFC 7240 asks.
func preferredWait(prefer string) time.Duration {
	for p := range strings.SplitSeq(prefer, ",") {
		if seconds, ok := strings.CutPrefix(strings.TrimSpace(p), "wait="); ok {
			if d, err := parseWait(seconds); err == nil {
				return d
			}
		}
	}
	return 0
}

// statusAfter returns the job's status once it has ended, or after wait.
func (a *API) statusAfter(ctx context.Context, id uuid.UUID, wait time.Duration) (operator.Status, error) {
	s, err := a.status(ctx, id)
	if err != nil || s.Ended() || wait == 0 {
		return s, err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	a.watcher.wait(waiting, id)
	return a.status(ctx, id)
}

// status returns the status of a job that exists.
func (a *API) status(ctx context.Context, id uuid.UUID) (operator.Status, error) {
	work, cancel := withTimeout(ctx)
	defer cancel()
	s, err := operator.ReadStatus(work, a.db, id)
	switch {
	case err != nil:
		return s, a.fail(ctx, err)
	case s.Status == operator.Unknown:
		return s, problem(http.StatusNotFound, "not_found", "no job has this ID, or it is so old that nothing remembers it")
	}
	return s, nil
}
