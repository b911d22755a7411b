package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// strangers is a mistake for each subject of the worker that its stream never
// holds: unnoticed, the messages meant would all be dead letters. Of a stream that
// the file does not declare nobody here knows the subjects.
func (f File) strangers(file string) (errs []error) {
	i := slices.IndexFunc(f.Streams, func(s Stream) bool { return f.Worker.Stream == "" || s.Name == f.Worker.Stream })
	if i < 0 {
		return nil
	}
	s := f.Streams[i]
	fail := func(place, subject string) {
		if !slices.ContainsFunc(s.Subjects, func(held string) bool { return overlap(held, subject) }) {
			errs = append(errs, fmt.Errorf("%s %s: stream %s takes only %s: correct one of them", place, subject, s.Name, strings.Join(s.Subjects, ", ")))
		}
	}
	for _, h := range f.Worker.Handlers {
		fail(cmp.Or(h.at, file)+": handler for", h.Subject)
	}
	for _, subject := range f.Worker.Subjects {
		fail(file+": worker.subjects:", subject)
	}
	return errs
}

// overlap reports whether a message can be on both, wildcards and all.
func overlap(a, b string) bool {
	x, moreA, onA := strings.Cut(a, ".")
	y, moreB, onB := strings.Cut(b, ".")
	switch {
	case x == ">" || y == ">":
		return true
	case x != y && x != "*" && y != "*":
		return false
	case !onA || !onB:
		return onA == onB
	}
	return overlap(moreA, moreB)
}
