// Command jetbox carries messages from a Postgres transaction through NATS
// JetStream to exactly one committed effect.
//
// This package only reads settings and puts the parts together; each verb is a
// file. Nothing starts while a setting is wrong, and all that are wrong are
// named at once.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// world is what a command may touch of the machine around it.
type world struct {
	environ        []string
	stdout, stderr io.Writer
	terminal       bool // a person reads stderr
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, exitOnSignal)
	code := run(ctx, os.Args[1:], world{
		environ:  os.Environ(),
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
	})
	stop()
	os.Exit(code)
}

// exitOnSignal is for whoever asks a second time. It is not left to the system,
// which lets the first process of a container ignore signals.
func exitOnSignal() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	<-again
	os.Exit(exitInterrupted)
}
