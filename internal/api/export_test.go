package api

import "context"

// Waiting is how many jobs someone waits for.
func (a *API) Waiting() int { return len(a.watcher.ids()) }

// Prune is one turn of the upkeep.
func (a *API) Prune(ctx context.Context) error { return a.prune(ctx) }
