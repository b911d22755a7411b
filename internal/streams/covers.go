package streams

import "strings"

// Covers reports whether pattern, which may hold the wildcards * and >, matches
// every subject that subject stands for. Subject may hold wildcards too.
func Covers(pattern, subject string) bool {
	for {
		p, morePattern, pMore := strings.Cut(pattern, ".")
		s, moreSubject, sMore := strings.Cut(subject, ".")
		if p == ">" {
			return s != ""
		}
		if s == ">" || s == "" || (p != "*" && p != s) || pMore != sMore {
			return false
		}
		if !pMore {
			return true
		}
		pattern, subject = morePattern, moreSubject
	}
}
