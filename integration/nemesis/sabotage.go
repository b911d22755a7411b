package main

import (
	"context"
	"fmt"
)

// sabotage plants the bug of a positive control.
func (l *lab) sabotage(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	if _, err := l.db.Exec(ctx, controls[name]); err != nil {
		return fmt.Errorf("plant %s: %w", name, err)
	}
	return nil
}

var controls = map[string]string{}
