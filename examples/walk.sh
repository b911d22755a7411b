#!/bin/sh
# A job's way with curl alone, while jetbox up runs: POST answers 202 and the
# job's place at once, GET waits there for the result.
set -eu
up=${1:-http://127.0.0.1:8080}

job=$(curl -sS -o /dev/null -w '%{http_code} %header{location}' "$up/jobs" \
	-H 'Content-Type: application/json' -d '{"subject": "jobs.echo", "payload": {"hello": "world"}}')
echo "$job"
curl -sS "$up${job#* }?wait=20s"
