package localenv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// openDir makes dir and returns its one true name.
func openDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return filepath.EvalSymlinks(dir)
}

// lock makes the holder of path the only one until unlock, or until the process
// ends in whatever way. unlock may be called twice.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process is using %s", filepath.Dir(path)), f.Close())
	}
	return func() error {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			return err
		}
		return nil
	}, nil
}

// keepPassword reads the password in path, or makes one: other users of this
// machine can reach the loopback too.
func keepPassword(path string) (string, error) {
	have, err := os.ReadFile(path)
	if err == nil && len(have) > 0 {
		return string(have), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("password: %w", err)
	}
	made := rand.Text()
	if err := os.WriteFile(path, []byte(made), 0o600); err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return made, nil
}
