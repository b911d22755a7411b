package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/internal/wait"
)

// watcher is the one who asks on behalf of all who wait for a job: one query a
// round, however many they are.
type watcher struct {
	db  operator.DB
	log *slog.Logger

	mu      sync.Mutex
	waiters map[uuid.UUID]map[chan struct{}]struct{}
	arrived chan struct{} // holds a token when there is someone new
}

func newWatcher(db operator.DB, log *slog.Logger) *watcher {
	return &watcher{db: db, log: log, waiters: map[uuid.UUID]map[chan struct{}]struct{}{}, arrived: make(chan struct{}, 1)}
}

// wait returns when the job has ended or ctx is done.
func (w *watcher) wait(ctx context.Context, id uuid.UUID) {
	ended := w.join(id)
	defer w.leave(id, ended)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// join returns a channel that is closed when the job has ended.
func (w *watcher) join(id uuid.UUID) chan struct{} {
	ended := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiters[id] == nil {
		w.waiters[id] = map[chan struct{}]struct{}{}
	}
	w.waiters[id][ended] = struct{}{}
	wait.Signal(w.arrived)
	return ended
}

func (w *watcher) leave(id uuid.UUID, ended chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiters[id], ended)
	if len(w.waiters[id]) == 0 {
		delete(w.waiters, id)
	}
}

func (w *watcher) ids() []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]uuid.UUID, 0, len(w.waiters))
	for id := range w.waiters {
		list = append(list, id)
	}
	return list
}

func (w *watcher) tell(ids []uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		for ended := range w.waiters[id] {
			close(ended)
		}
		delete(w.waiters, id)
	}
}

const (
	minPause = 20 * time.Millisecond
	maxPause = time.Second
)

// run asks while anyone waits, and rests at least four times as long as an
// answer took.
func (w *watcher) run(ctx context.Context) error {
	away := false
	for {
		ids := w.ids()
		if len(ids) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-w.arrived:
				continue
			}
		}
		start := time.Now()
		err := w.ask(ctx, ids)
		if err != nil && !away && ctx.Err() == nil {
			w.log.LogAttrs(ctx, slog.LevelWarn, "cannot look for jobs that ended, will try again", slog.Any("error", err))
		}
		away = err != nil
		pause := min(max(minPause, 4*time.Since(start)), maxPause)
		if away {
			pause = maxPause
		}
		if !wait.Sleep(ctx, pause) {
			return nil
		}
	}
}

func (w *watcher) ask(ctx context.Context, ids []uuid.UUID) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	ended, err := operator.Ended(ctx, w.db, ids)
	w.tell(ended)
	return err
}
