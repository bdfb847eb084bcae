# What a change must pass: make lint test. The rest is for looking closer.

GOFUMPT     = go run mvdan.cc/gofumpt@v0.11.0
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME   ?= 20s
SOAKTIME   ?= 10m

.PHONY: all test lint fmt cover fuzz bench soak load

all: lint test

test:
	go test work
	go test -race -shuffle=on work

# Each module is also built as users of it see it, without the workspace.
lint:
	@echo "== lint"
	@unformatted=$$($(GOFUMPT) -l .); test -z "$$unformatted" || { echo "not gofumpt-formatted:"; echo "$$unformatted"; exit 1; }
	go vet work
	@for module in $$(go list -m -f '{{.Dir}}'); do \
		(cd $$module && echo "$$module" && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff && GOWORK=off $(STATICCHECK) ./...) || exit 1; \
	done
	@unwanted=$$(GOWORK=off go list -m -f '{{if not .Indirect}}{{.Path}}{{end}}' all | grep -vxE 'github.com/(admit-go/admit|justinas/alice|stretchr/testify)|golang.org/x/(time|sync)'); \
		test -z "$$unwanted" || { echo "the root module must not require:"; echo "$$unwanted"; exit 1; }

fmt:
	$(GOFUMPT) -w .

# Statements of the root module, examples and nested modules apart: 92% at least.
cover:
	@echo "== coverage"
	@go test -coverprofile=coverage.out -coverpkg=./ . >/dev/null
	@go tool cover -func=coverage.out | awk 'END { print; exit !($$3 + 0 >= 92) }'

# Every fuzz target in turn, for FUZZTIME each. Before Go 1.27 the end of that time may be
# reported as a failure (golang/go#75804); one that has found something says so.
fuzz:
	@echo "== fuzz, $(FUZZTIME) each"
	@grep -rho --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' -H . | sort | sed 's|/[^/]*:func | |' | while read -r package target; do \
		output=$$(go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package 2>&1) || \
			{ echo "$$output" | grep -qx '    context deadline exceeded' && ! echo "$$output" | grep -q 'Failing input'; } || \
			{ echo "$$output"; exit 1; }; \
		echo "$$package $$target: $$(echo "$$output" | grep -o 'execs: [0-9]*' | tail -n 1)"; \
	done

# admit beside its peers; about ten minutes. It writes integration/bench/RESULTS.md and the plots.
bench:
	go run ./integration/bench

# The example under mixed load with random faults, for SOAKTIME.
soak:
	@echo "== soak, $(SOAKTIME)"
	@go run ./integration/soak -for $(SOAKTIME)

# Needs wrk and nghttp2-client, and about eight minutes on a machine that does nothing else.
load:
	go run ./integration/load -out integration/load/RESULTS.md
