package outbox

import (
	"regexp"
	"slices"
	"testing"
)

// subjectRule is what migrations/00003_outbox.sql asks of a subject.
var subjectRule = regexp.MustCompile(`^[A-Za-z0-9-][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+){0,15}\z`)

func FuzzCheckSubject_AgreesWithTheTable(f *testing.F) {
	for _, s := range []string{"jobs.a", "", ".", "a..b", "a.", "$JS.API", "_INBOX.x", "a._b", "-", "a b", "a\n", "a.>", "ä", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := subjectRule.MatchString(s) && len(s) <= 200
		if err := checkSubject(s); (err == nil) != want {
			t.Errorf("checkSubject(%q) = %v, and the table accepts it: %t", s, err, want)
		}
	})
}

func FuzzParseSnapshot_KeepsWhatItReads(f *testing.F) {
	for _, s := range []string{"1:1:", "10:20:10,14,15", "10:20", "a:b:c", "1:18446744073709551615:", "1:2:3,,4", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSnapshot(text)
		if err != nil {
			return
		}
		again, err := parseSnapshot(s.text)
		if err != nil || s.text != text || again.xmax != s.xmax || !slices.Equal(again.xip, s.xip) {
			t.Errorf("parseSnapshot(%q) = %+v, then %+v, %v", text, s, again, err)
		}
	})
}
