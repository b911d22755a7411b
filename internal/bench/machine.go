package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
)

const settingsSQL = `
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'),
	current_setting('shared_buffers'), current_setting('max_wal_size')`

// machine says where the figures are from.
func (l *lab) machine(ctx context.Context) ([]string, error) {
	var version, fsync, synchronous, buffers, wal string
	if err := l.db.QueryRow(ctx, settingsSQL).Scan(&version, &fsync, &synchronous, &buffers, &wal); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	sync := "not ours"
	if l.NATS == nil {
		sync = "private, sync_interval 2m, the server's default"
		if l.SyncAlways {
			sync = "private, sync_interval always"
		}
	}
	return []string{
		fmt.Sprintf("machine: %s, %d cores, %s/%s, shared by all that is private", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH),
		fmt.Sprintf("postgres: %s (%s), fsync %s, synchronous_commit %s, shared_buffers %s, max_wal_size %s",
			version, l.postgres, fsync, synchronous, buffers, wal),
		fmt.Sprintf("nats: %s (%s), stream on file, one replica", l.nc.ConnectedServerVersion(), sync),
		fmt.Sprintf("medians of %d rounds", l.Rounds),
	}, nil
}

// processor names the CPU where the system tells, as Linux does.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // elsewhere: unknown
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown processor"
}
