package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jetboxhq/jetbox/internal/config"
)

// environment holds the variables of the process.
type environment map[string]string

func newEnvironment(environ []string) environment {
	e := make(environment, len(environ))
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		e[name] = value
	}
	return e
}

// or returns the flag if it was given, and else the variable.
func (e environment) or(flag, name string) string {
	if flag != "" {
		return flag
	}
	return e[name]
}

// list is e as a process takes it.
func (e environment) list() []string {
	var lines []string
	for name, value := range e {
		lines = append(lines, name+"="+value)
	}
	return lines
}

// secret returns the variable, or what the file says that NAME_FILE names.
func (e environment) secret(name string) (string, error) {
	path := e[name+"_FILE"]
	switch {
	case path == "":
		return e[name], nil
	case e[name] != "":
		return "", fmt.Errorf("%s and %s_FILE are both set: keep one", name, name)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, err)
	}
	text := strings.TrimRight(string(file), "\r\n")
	if text == "" { // a secret that is not mounted yet must not mean none at all
		return "", fmt.Errorf("%s_FILE: %s is empty", name, path)
	}
	return text, nil
}

var (
	secrets  = []string{"DATABASE_URL", "NATS_URL", "NATS_PASSWORD", "NATS_TOKEN"}
	settable = []string{
		"NATS_CREDS", "NATS_NKEY", "NATS_USER", "NATS_CA", "NATS_CERT", "NATS_KEY",
		"HTTP_ADDR", "LOG_LEVEL", "LOG_FORMAT", "OUTBOX_RETENTION", "INBOX_RETENTION", "ACK_WAIT",
		"SHUTDOWN_TIMEOUT", "JETBOX_CONFIG", "JETBOX_STREAMS", "JETBOX_CONFIRM_CONSUMER", "JETBOX_DATA_DIR", "JETBOX_DEFAULT_SUBJECT",
	}
)

// typos returns what was probably meant by each variable that looks like ours
// and is not. Only a guess: other programs have variables too.
func (e environment) typos() map[string]string {
	known := slices.Concat(settable, secrets)
	for _, name := range secrets {
		known = append(known, name+"_FILE")
	}
	meant := map[string]string{}
	for name := range e {
		if near := config.Nearest(name, known); near != "" && near != name && ours(name) && !slices.Contains(known, name) {
			meant[name] = near
		}
	}
	return meant
}

func ours(name string) bool {
	prefix, _, _ := strings.Cut(name, "_")
	return slices.Contains([]string{"OUTBOX", "INBOX", "NATS", "JETBOX"}, prefix)
}
