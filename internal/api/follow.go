package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/internal/wait"
)

type followInput struct {
	ID string `path:"id" doc:"The job's ID, a UUID"`
}

// follow streams a job's status: at once, whenever it has changed, and last
// when it has ended. A client that reconnects begins again with the present.
func (a *API) follow(ctx context.Context, in *followInput) (*huma.StreamResponse, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	s, err := a.status(ctx, id)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		_, w := humago.Unwrap(c)
		w.Header().Set("Content-Type", "text/event-stream")
		a.stream(c.Context(), w, id, s)
	}}, nil
}

const (
	// followEvery is how often a stream looks for what happens before the end:
	// the end itself comes from the watcher, at once.
	followEvery = 2 * time.Second
	// followFor ends a stream; the client's next connection goes on.
	followFor = 10 * time.Minute
)

func (a *API) stream(ctx context.Context, w http.ResponseWriter, id uuid.UUID, s operator.Status) {
	ctx, cancel := context.WithTimeout(ctx, followFor)
	defer cancel()
	out := http.NewResponseController(w)
	last := ""
	for {
		text, err := json.Marshal(s)
		if err != nil {
			return // the result is JSON that Postgres has checked
		}
		event := ": still " + s.Status + "\n\n" // a comment tells proxies that someone is there
		if now := string(text); now != last {
			event, last = fmt.Sprintf("event: status\ndata: %s\n\n", text), now
		}
		if out.SetWriteDeadline(time.Now().Add(10*time.Second)) != nil {
			return
		}
		if _, err := w.Write([]byte(event)); err != nil || out.Flush() != nil || s.Ended() {
			return
		}
		next := time.Now().Add(followEvery)
		if s, err = a.statusAfter(ctx, id, followEvery); err != nil {
			return // the client connects again, and is told why
		}
		if !s.Ended() { // a job cancelled once and enqueued again seems to have ended
			wait.Sleep(ctx, time.Until(next))
		}
	}
}
