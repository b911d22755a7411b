# Every target is one command that you could type yourself.
.DEFAULT_GOAL := help
.PHONY: help demo up test nemesis nemesis-nightly controls lint fmt bench build image

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## prove the promise: processes are killed, nothing is lost or doubled
	go run ./cmd/jetbox demo

up: ## run everything in one process, data in ./jetbox-data
	go run ./cmd/jetbox up

test: ## run every test, against real servers
	go test -race -timeout 20m ./...

SEED ?= 1
SEEDS ?= 20
DURATION ?= 30s
PARALLEL ?= 2

nemesis: ## break everything on purpose and count what was lost (SEED=n SEEDS=20 DURATION=30s PARALLEL=2)
	go run ./integration/nemesis -seed $(SEED) -seeds $(SEEDS) -duration $(DURATION) -parallel $(PARALLEL)

nemesis-nightly: ## 300 runs of a minute
	go run ./integration/nemesis -seed $(SEED) -seeds 300 -duration 60s -parallel $(PARALLEL)

controls: ## plant known bugs: the nemesis must see each
	go run ./integration/nemesis -controls all -seed $(SEED) -seeds $(SEEDS) -duration $(DURATION) -parallel $(PARALLEL)

lint: ## vet and lint
	go vet ./...
	golangci-lint run ./...

fmt: ## format
	gofumpt -w .

bench: ## run every benchmark
	go test -run '^$$' -bench . ./...

build: ## build bin/jetbox
	CGO_ENABLED=0 go build -trimpath -o bin/jetbox ./cmd/jetbox

image: ## build the container image
	docker build -t jetbox .
