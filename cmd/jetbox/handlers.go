package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/config"
	"github.com/jetboxhq/jetbox/internal/handlers"
)

// builtin reports that jetbox.yaml names no handlers.
func (s *settings) builtin() bool { return len(s.wanted) == 0 }

// makeHandlers makes what the worker runs. Only a process that has a worker
// needs the commands and the secrets that jetbox.yaml names.
func (s *settings) makeHandlers() {
	if s.builtin() {
		s.handlers = builtinHandlers()
		return
	}
	for _, h := range s.wanted {
		made, err := s.makeHandler(h)
		if err != nil {
			s.note(fmt.Errorf("%s: handler for %s: %w", h.At(), h.Subject, err))
		}
		limits := inbox.Limits{MaxAttempts: h.MaxAttempts, Timeout: time.Duration(h.Timeout)}
		s.handlers = append(s.handlers, made.Limit(limits))
	}
}

// makeHandler returns a handler for h's subject even when it is of no use, so
// that no second mistake is seen where there is one.
func (s *settings) makeHandler(h config.Handler) (inbox.Handler, error) {
	switch {
	case h.HTTP != "":
		endpoint, err := s.endpoint(h)
		return inbox.Handle(h.Subject, endpoint.Call), err
	case len(h.Exec) > 0:
		command, err := handlers.NewExec(handlers.ExecConfig{Command: h.Exec, Environ: s.env.list(), Pass: h.Env})
		return inbox.Handle(h.Subject, command.Call), err
	}
	return inbox.SQLFunctionAs(h.Role, h.Subject, h.SQL), nil
}

func (s *settings) endpoint(h config.Handler) (*handlers.HTTP, error) {
	header, missing := s.header(h)
	endpoint, err := handlers.NewHTTP(handlers.HTTPConfig{URL: h.HTTP, Header: header, AllowPrivate: h.AllowPrivate})
	if err == nil {
		s.release = append(s.release, endpoint.Close)
	}
	return endpoint, errors.Join(err, missing)
}

// header is what jetbox.yaml sends with each request, secrets filled in.
func (s *settings) header(h config.Handler) (http.Header, error) {
	header, errs := http.Header{}, []error(nil)
	for name, value := range h.Headers {
		header.Set(name, value)
	}
	for name, variable := range h.HeadersFromEnv {
		value, err := s.env.secret(variable)
		switch {
		case err != nil:
			errs = append(errs, err)
		case value == "":
			errs = append(errs, fmt.Errorf("headers_from_env: %s is not set", variable))
		case header.Get(name) != "":
			errs = append(errs, fmt.Errorf("header %s is in headers and in headers_from_env: keep one", name))
		}
		header.Set(name, value)
	}
	return header, errors.Join(errs...)
}
