# rbox is built without cgo into one static file. `make help` lists the targets.

GO      ?= $(or $(shell command -v go),$(CURDIR)/.go/bin/go)
VERSION ?= $(or $(shell git describe --tags --always 2>/dev/null),dev)

# The small second executable, which rbox embeds (go:embed needs it first).
STAGEBIN := cmd/rbox/stagebin/stage

# The third, larger one: the network process. The small bin/rbox needs to know its
# hash only.
NETWORKBIN := cmd/rbox/networkbin/network

# The whole of rbox, which the small bin/rbox embeds and becomes (cmd/rbox/front.go).
WHOLE := cmd/rbox/whole/rbox

LDFLAGS := -s -w -X main.version=$(VERSION)

export CGO_ENABLED := 0

.PHONY: all build deps test test-vm fuzz bench demo docs docs-security fmt clean help

all: build

build: ## bin/rbox
	@$(GO) build -trimpath -ldflags '-s -w' -o $(STAGEBIN) ./cmd/stage
	@sha256sum <$(STAGEBIN) | cut -c -64 >$(STAGEBIN).sum
	@$(GO) build -trimpath -ldflags '-s -w' -o $(NETWORKBIN) ./cmd/network
	@sha256sum <$(NETWORKBIN) | cut -c -64 >$(dir $(STAGEBIN))network.sum
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(WHOLE) ./cmd/rbox
	@sha256sum <$(WHOLE) | cut -c -64 >$(WHOLE).sum
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -tags front -o bin/rbox ./cmd/rbox

deps: ## install the Debian packages that rbox, its tests and its benchmarks use
	@GO='$(GO)' tests/deps.sh

test: deps build ## install what tests need, then run every check and test
	@$(GO) run ./tests/runner -skips tests/skips.txt $(if $(FUZZTIME),-fuzztime '$(FUZZTIME)') $(if $(SUMMARY),-summary '$(SUMMARY)')

test-vm: deps build ## run only the tests in the guest: Linux 6.1, systemd, delegated cgroups
	@$(GO) run ./tests/runner -skips tests/skips.txt -guest

fuzz: build ## run each fuzz target for FUZZTIME (60s)
	@$(GO) run ./tests/runner -fuzz -fuzztime '$(or $(FUZZTIME),60s)'

bench: deps build ## measure rbox beside crun, bubblewrap and podman, as an unprivileged user
	@$(GO) run ./tests/bench

demo: deps build ## pull an image and run a container as an unprivileged user
	@$(GO) run ./tests/demo

docs: ## write what docs/commands has of the command line
	@$(GO) test -count=1 -run '^TestPages$$' ./cmd/rbox -update

docs-security: build ## try again what docs/security.md has of rbox beside podman
	@$(GO) test -count=1 -run '^TestBesidePodman$$' ./tests -update

fmt: ## gofmt everything
	@gofmt -l -w cmd userns idmap rootfs slirp cgroupv2 tests

clean: ## delete what make built
	rm -rf bin $(STAGEBIN) $(dir $(STAGEBIN))*.sum $(NETWORKBIN) $(WHOLE) $(WHOLE).sum

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
