package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// While jetbox up runs a private Postgres, a file in its data directory says how
// to reach it: for jetbox status, and for a shell (set -a; . jetbox.env).

func dataDir(flag string, env environment) string {
	return cmp.Or(env.or(flag, "JETBOX_DATA_DIR"), "jetbox-data")
}

func noteFile(dir string) string { return filepath.Join(dir, "jetbox.env") }

// leaveNote writes nothing that the user told us: their secrets stay theirs.
func (p *surroundings) leaveNote() error {
	if p.postgres == nil {
		return nil
	}
	text := "DATABASE_URL=" + p.postgres.URL() + "\n"
	if p.broker != nil {
		text += "NATS_URL=" + p.broker.URL() + "\n"
	}
	path := noteFile(p.dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

// readNote returns the database of the jetbox up that runs in dir.
func readNote(dir string) (string, error) { return readNoteOf("DATABASE_URL", dir) }

// readNoteOf returns what the note says of a variable.
func readNoteOf(name, dir string) (string, error) {
	text, err := os.ReadFile(noteFile(dir))
	if err != nil {
		return "", fmt.Errorf("missing --database-url (or DATABASE_URL), and no jetbox up runs in %s; example: %s", dir, databaseExample)
	}
	for line := range strings.Lines(string(text)) {
		if url, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return url, nil
		}
	}
	return "", fmt.Errorf("%s names no %s", noteFile(dir), name)
}
