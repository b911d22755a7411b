package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Handler gives the messages of a subject to one of a SQL function, an HTTP
// endpoint and a command.
type Handler struct {
	// Subject is required; * and > are wildcards.
	Subject string `yaml:"subject"`
	// MaxAttempts and Timeout are the section worker's where they are left out.
	MaxAttempts int      `yaml:"max_attempts"`
	Timeout     Duration `yaml:"timeout"`

	// SQL is a function(m jetbox.message), called as Role if there is one.
	SQL  string `yaml:"sql"`
	Role string `yaml:"role"`

	// HTTP is a URL. Headers go with each request; those of HeadersFromEnv have
	// the value of a variable.
	HTTP           string            `yaml:"http"`
	Headers        map[string]string `yaml:"headers"`
	HeadersFromEnv map[string]string `yaml:"headers_from_env"`
	// AllowPrivate lets a public name resolve to a private address.
	AllowPrivate bool `yaml:"allow_private"`

	// Exec is a program and its arguments. Env names the variables it gets beyond
	// the harmless ones.
	Exec []string `yaml:"exec"`
	Env  []string `yaml:"env"`

	at string
}

// At is where the file has the handler, as file:line:column.
func (h Handler) At() string { return h.at }

func (h *Handler) foundAt(place string) { h.at = place }

func (h Handler) validate() []error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{h.at}, args...)...))
	}
	if !streamSubject.MatchString(h.Subject) {
		fail("handler: subject %q is not a subject such as jobs.email", h.Subject)
	}
	kinds := h.kinds()
	if len(kinds) != 1 {
		fail("handler for %s: need one of sql, http and exec, got %s", h.Subject, cmp.Or(strings.Join(kinds, " and "), "none"))
		return errs
	}
	for _, k := range h.strays(kinds[0]) {
		fail("handler for %s: %s does not go with %s", h.Subject, k, kinds[0])
	}
	if h.MaxAttempts < 0 {
		fail("handler for %s: max_attempts is %d, need 1 or more", h.Subject, h.MaxAttempts)
	}
	return errs
}

func (h Handler) kinds() []string {
	return given(map[string]bool{"sql": h.SQL != "", "http": h.HTTP != "", "exec": len(h.Exec) > 0})
}

// strays are the keys that only another kind of handler has.
func (h Handler) strays(kind string) []string {
	return given(map[string]bool{
		"role":             kind != "sql" && h.Role != "",
		"headers":          kind != "http" && len(h.Headers) > 0,
		"headers_from_env": kind != "http" && len(h.HeadersFromEnv) > 0,
		"allow_private":    kind != "http" && h.AllowPrivate,
		"env":              kind != "exec" && len(h.Env) > 0,
	})
}

func given(keys map[string]bool) []string {
	var names []string
	for name, is := range keys {
		if is {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
