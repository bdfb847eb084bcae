# What a change must pass: make lint test. The rest is for looking closer.

GOFUMPT     = go run mvdan.cc/gofumpt@v0.11.0
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.7.0
ACTIONLINT  = go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
FUZZTIME   ?= 20s
SOAKTIME   ?= 10m

.PHONY: all test race lint fmt cover allocs test-go vet-platforms vuln fuzz bench soak load overload release

all: lint test

test:
	go test work
	$(MAKE) race

# The root is alone, since its tests count goroutines and memory. Those that measure, read sources or pages, or wait for a
# browser or for validators of others have nothing that could race.
race:
	go test -race -shuffle=on .
	go test -race -shuffle=on $$(go list work | grep -vxE 'github.com/admit-go/admit(/integration/(attack|bench|contract|guides.*|house|load|monitoring|page|release|timeouts))?')

# Each module is also built as users of it see it, without the workspace.
lint:
	@unformatted=$$($(GOFUMPT) -l .) || exit 1; test -z "$$unformatted" || { echo "not gofumpt-formatted:"; echo "$$unformatted"; exit 1; }
	go vet work
	$(ACTIONLINT) .github/workflows/*.yml
	@for module in $$(go list -m -f '{{.Dir}}'); do \
		(cd $$module && echo "$$module" && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff && GOWORK=off $(STATICCHECK) ./...) || exit 1; \
	done
	@before=$$(cat go.work.sum); go list -m all >/dev/null || exit 1; \
		test "$$before" = "$$(cat go.work.sum)" || { echo "go.work.sum was not complete, so that go list changes it; it is now: commit it"; exit 1; }
	@unwanted=$$(GOWORK=off go list -m -f '{{if not .Indirect}}{{.Path}}{{end}}' all | grep -vxE 'github.com/(admit-go/admit|justinas/alice|stretchr/testify)|golang.org/x/time'); \
		test -z "$$unwanted" || { echo "the root module must not require:"; echo "$$unwanted"; exit 1; }

fmt:
	$(GOFUMPT) -w .

# Statements of the root package and its internal ones: 92% at least.
cover:
	@go test -short -coverprofile=coverage.out -coverpkg=./,./internal/jsonfault,./internal/filewatch,./internal/filereplace,./internal/mediatype,./internal/mint,./internal/breaker,./internal/outage,./internal/lists,./internal/keyform,./internal/jsontree,./internal/gate,./internal/calendar,./internal/shares,./internal/lease,./internal/alarm,./internal/lazyctx,./internal/sqldb . ./internal/... >coverage.txt 2>&1 || { cat coverage.txt; exit 1; }
	@go tool cover -func=coverage.out | awk 'END { print; exit !($$3 + 0 >= 92) }'

# Allocations of admit in the benchmarks, beside those of the last make bench.
allocs:
	@go run ./integration/bench -allocs

# The published modules with other versions of Go, on 32 bits, and with encoding/json on v2.
test-go:
	@.ci/test-go

# Vet and build for the platforms of others.
vet-platforms:
	@.ci/vet-platforms

# Known vulnerabilities, if their database can be reached.
vuln:
	@.ci/vuln

# Every fuzz target in turn, for FUZZTIME each.
fuzz:
	@FUZZTIME=$(FUZZTIME) .ci/fuzz

# admit beside its peers; about ten minutes. It writes RESULTS.md, allocs.txt and the plots
# of integration/bench.
bench:
	go run ./integration/bench

# The example under mixed load with random faults, for SOAKTIME.
soak:
	@go run ./integration/soak -for $(SOAKTIME)

# Needs wrk and nghttp2-client, and about eight minutes on a machine that does nothing else.
load:
	go run ./integration/load -out integration/load/RESULTS.md

# More than a service can do, with different admissions in front of it; about twenty minutes
# on a machine that does nothing else.
overload:
	go run ./integration/overload -out integration/overload

# The commits and tags of a release, in this clone: make release VERSION=v0.1.0. It pushes nothing.
release:
	@go run ./integration/release "$(VERSION)"
