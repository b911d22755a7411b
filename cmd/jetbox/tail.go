package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/jetboxhq/jetbox/internal/operator"
	"github.com/jetboxhq/jetbox/internal/wait"
)

type tailCommand struct {
	operatorFlags
	Subject string `arg:"" optional:"" help:"Only on this subject; * and > are wildcards."`
}

// lookEvery is how soon a line follows what it tells.
const lookEvery = 500 * time.Millisecond

// pattern has tokens with dots between them, the last of which may be >.
var pattern = regexp.MustCompile(`^([^\s.*>]+|\*)(\.([^\s.*>]+|\*))*(\.>)?$|^>?$`)

func (c tailCommand) Run(ctx context.Context, w world) error {
	if !pattern.MatchString(c.Subject) {
		return mistakes{fmt.Errorf("%q is not a subject such as jobs.email or jobs.>: no message could match", c.Subject)}
	}
	return c.with(ctx, w, func(conn *pgx.Conn) error {
		tail, err := operator.NewTail(ctx, conn, c.Subject)
		for err == nil && wait.Sleep(ctx, lookEvery) {
			var list []operator.Passing
			if list, err = tail.Next(ctx); err == nil {
				err = c.print(w, list)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

func (c tailCommand) print(w world, list []operator.Passing) error {
	for _, p := range list {
		if c.JSON {
			if err := json.NewEncoder(w.stdout).Encode(p); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(w.stdout, passingLine(p)); err != nil {
			return err
		}
	}
	return nil
}

// passingLine keeps to one line whatever a handler returned.
func passingLine(p operator.Passing) string {
	at, text := p.At.Local().Format("15:04:05.000"), oneLine(p.Text)
	if p.ID == nil {
		return fmt.Sprintf("%s  %-7s  %s", at, p.What, text)
	}
	return strings.TrimRight(harmless(fmt.Sprintf("%s  %-7s  %s  %s  %s  %s", at, p.What, p.ID, p.Subject, p.Consumer, text)), " ")
}

// harmless is text on one line, without what would move a terminal's cursor: a
// handler's error may repeat what a producer sent.
func harmless(text string) string { return withoutControls(text, "") }

// printable is harmless lines of cells: whoever may publish chooses subjects, too.
func printable(lines string) string { return withoutControls(lines, "\t\n") }

func withoutControls(text, but string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0)) && !strings.ContainsRune(but, r) {
			return ' '
		}
		return r
	}, text)
}

// oneLine is the beginning of harmless text.
func oneLine(text string) string {
	runes := []rune(harmless(text))
	if len(runes) > 100 {
		return string(runes[:99]) + "…"
	}
	return string(runes)
}
