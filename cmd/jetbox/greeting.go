package main

import (
	"fmt"
	"text/tabwriter"
)

// greet tells a person what runs and what to type next.
func (p *surroundings) greet(w world, httpAddr string, builtin bool) {
	dsn, origin := `"$DATABASE_URL"`, "yours, "+p.db.ConnConfig.Host
	if p.postgres != nil {
		dsn, origin = "'"+p.postgres.URL()+"'", p.postgres.Origin()
	}
	broker := "yours"
	if p.broker != nil {
		broker = "embedded"
	}
	table := tabwriter.NewWriter(w.stderr, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintf(table, "\njetbox is up. Ctrl-C stops it.\n\n  Postgres\t%s\n  NATS\t%s, %s\n  HTTP\thttp://%s\t/jobs /docs /healthz /readyz /metrics\n",
		origin, broker, p.nats, httpAddr)
	if p.postgres != nil || p.broker != nil {
		_, _ = fmt.Fprintf(table, "  data\t%s\n", p.dir)
	}
	_ = table.Flush() // a banner that cannot be shown is no reason to stop
	subject := "jobs.echo"
	if !builtin {
		subject = "a.subject.of.yours"
	}
	_, _ = fmt.Fprintf(w.stderr, `
Enqueue a message, see its result, see what is going on:

  psql %s -c "INSERT INTO jetbox.outbox (subject, payload) VALUES ('%s', '{\"hello\": \"world\"}')"
  psql %s -c "SELECT subject, result, processed_at FROM jetbox.inbox"
  curl -i http://%s/jobs -H 'Content-Type: application/json' -d '{"subject": "%s", "payload": {"hello": "world"}}'
  jetbox status

`, dsn, subject, dsn, httpAddr, subject)
}
