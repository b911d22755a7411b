package api

// Waiting is how many jobs someone waits for.
func (a *API) Waiting() int { return len(a.watcher.ids()) }
