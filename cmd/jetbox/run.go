package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/jetboxhq/jetbox/inbox"
	"github.com/jetboxhq/jetbox/internal/streams"
	"github.com/jetboxhq/jetbox/migrations"
)

// Exit codes, for scripts and orchestrators.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2   // a flag, a variable, a file, a stream, a consumer or a function has to be corrected
	exitUnreachable = 3   // Postgres did not answer in time
	exitSchema      = 4   // the database has another schema than this binary needs
	exitInterrupted = 130 // the second signal
)

// cli is every verb. An example is shown by the verb's --help.
type cli struct {
	Up         upCommand         `cmd:"" help:"Run everything in one process, with a private Postgres and an embedded NATS where none is named." example:"jetbox up --http-addr 127.0.0.1:9000"`
	Demo       demoCommand       `cmd:"" help:"Prove the promise: kill relay, worker and broker under load, then count what was lost or doubled." example:"jetbox demo --json"`
	Bench      benchCommand      `cmd:"" help:"Measure this machine: relay, worker, end to end, INSERT, and growth."`
	Relay      relayCommand      `cmd:"" help:"Publish what is committed to the outbox." example:"jetbox relay --database-url postgres://relay@db/app --nats-url nats://nats:4222"`
	Worker     workerCommand     `cmd:"" help:"Process messages, each exactly once in the database." example:"jetbox worker --config jetbox.yaml"`
	API        apiCommand        `cmd:"" name:"api" help:"Take jobs over HTTP and say what has become of them." example:"jetbox api --http-addr 127.0.0.1:8080 --default-subject jobs.default"`
	Token      tokenCommand      `cmd:"" help:"Make, list and revoke tokens of the jobs API."`
	Status     statusCommand     `cmd:"" help:"Show what waits, what is done and what is dead, and who is at work." example:"jetbox status --watch"`
	Health     healthCommand     `cmd:"" help:"Ask the daemon on this machine whether it is ready: exit code 0 or 1." example:"jetbox health --http-addr 127.0.0.1:8080"`
	Tail       tailCommand       `cmd:"" help:"Show messages as they pass: sent, done and dead." example:"jetbox tail 'jobs.>'"`
	Show       showCommand       `cmd:"" help:"Tell one message's whole life." example:"jetbox show 01890a5d-ac96-774b-bcce-b302099a8057"`
	Dead       deadCommand       `cmd:"" help:"See dead letters, send them out again, or discard them."`
	Send       sendCommand       `cmd:"" help:"Enqueue one message." example:"jetbox send jobs.echo '{\"hello\": \"world\"}' --wait 5s"`
	Schedule   scheduleCommand   `cmd:"" help:"See and cancel messages for later."`
	Replay     replayCommand     `cmd:"" help:"Publish again what the outbox still holds." example:"jetbox replay --since 1h --dry-run"`
	Pause      pauseCommand      `cmd:"" help:"Hold messages back: a consumer's in the broker, or the relay's in the outbox." example:"jetbox pause relay --for 10m"`
	Resume     resumeCommand     `cmd:"" help:"Let them go on." example:"jetbox resume relay"`
	Doctor     doctorCommand     `cmd:"" help:"Look for what is wrong before it does harm: exit code 0, 1 (warnings) or 2 (errors)." example:"jetbox doctor --json"`
	Migrate    migrateCommand    `cmd:"" help:"Bring a database to the schema this binary needs, or look."`
	Version    versionCommand    `cmd:"" help:"Show what this binary is." example:"jetbox version --json"`
	Completion completionCommand `cmd:"" help:"Print what makes a shell complete verbs and flags." example:"jetbox completion bash"`
	Complete   completeCommand   `cmd:"" hidden:"" help:"What a shell asks while a person types."`
}

const description = `jetbox carries a message from a Postgres transaction through NATS JetStream to exactly one committed effect.

Try it with nothing but this binary: jetbox up`

// run is main without the globals, so a test can start the whole daemon.
func run(ctx context.Context, args []string, w world) int {
	for i, arg := range args {
		if !utf8.ValidString(arg) { // what reads them would make other characters of it
			return report(w, mistakes{fmt.Errorf("argument %d is not UTF-8", i+1)})
		}
	}
	helped := false
	parser, err := newParser(ctx, w, func(int) { helped = true })
	if err != nil {
		return report(w, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return exitOK
	case err != nil:
		return report(w, mistakes{fmt.Errorf("%w (jetbox --help lists what there is)", err)})
	}
	return report(w, command.Run())
}

func newParser(ctx context.Context, w world, exit func(int)) (*kong.Kong, error) {
	return kong.New(&cli{},
		kong.Name("jetbox"),
		kong.Description(description),
		kong.Writers(w.stdout, w.stderr),
		kong.Exit(exit),
		kong.Help(help),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(w),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
}

// help adds the verb's example to what kong knows to say.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if verb := ctx.Selected(); verb != nil && verb.Tag.Has("example") {
		_, err := fmt.Fprintf(ctx.Stdout, "\nExample:\n  %s\n", verb.Tag.Get("example"))
		return err
	}
	return nil
}

// mistakes are settings that a person has to correct.
type mistakes []error

func (m mistakes) Error() string {
	return strings.ReplaceAll(errors.Join(m...).Error(), "\n", "\n  ")
}

func (m mistakes) Unwrap() []error { return m }

// found returns the errors among errs as mistakes, or nil.
func found(errs ...error) error {
	var m mistakes
	for _, err := range errs {
		if err != nil {
			m = append(m, err)
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// errUnreachable reports a server that did not answer in time.
var errUnreachable = errors.New("unreachable")

func report(w world, err error) int {
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(w.stderr, "jetbox:", err) // where else could this go
	return exitCode(err)
}

func exitCode(err error) int {
	var m mistakes
	switch {
	case errors.As(err, &m), errors.Is(err, streams.ErrConfig), errors.Is(err, inbox.ErrConsumer), errors.Is(err, inbox.ErrFunction):
		return exitUsage
	case errors.Is(err, migrations.ErrVersion):
		return exitSchema
	case errors.Is(err, errUnreachable):
		return exitUnreachable
	}
	return exitFailure
}
