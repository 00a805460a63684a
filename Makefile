# scry-backfill: what people and CI call. Each target says what it does; the
# work is done by cargo, cargo-pgrx and the programs of scry_testkit.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The server to build against: PostgreSQL 15 where Debian puts it, else the one in PATH.
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)
export PG_CONFIG

# How long the load of `make demo` runs once the shadow follows.
DEMO_SECONDS ?= 30
export DEMO_SECONDS

# Everything `make test` and `make demo` build is built in this one profile,
# from this one selection of packages, so that nothing is built twice.
PROFILE := e2e
TARGET := $(or $(CARGO_TARGET_DIR),target)
PACKAGES := --workspace --exclude scry_backfill_ext
PG_FEATURE = pg$(shell $(PG_CONFIG) --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
# With the steps at which tests make workers fail; `install` builds without.
EXT_FEATURES = --no-default-features --features "$(PG_FEATURE) failpoints"
# The flag cargo-pgrx builds with: the same here, so that cargo sees one build.
EXT_CONFIG := --config 'target."cfg(all(target_family = \"unix\", not(target_os = \"macos\")))".rustflags = ["-C", "link-arg=-Wl,--no-gc-sections"]'

# Tests that start clusters at the same time.
TEST_THREADS ?= 2

.PHONY: help deps programs build ext ext-stage demo test check unit in-server e2e soak storm kills install bench audit fmt lint

help: ## lists the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 12

deps: ## installs what is missing: PostgreSQL 15 and its headers, libclang, cargo-pgrx
	@.ci/deps

demo: deps ext-stage programs ## source and shadow with a live load, compared at the end
	@$(TARGET)/$(PROFILE)/scry_demo

test: lint ext-stage build unit e2e ## everything: format, lints, unit, in-server and end-to-end tests

programs: ## builds sender, platform and the programs of the test kit
	cargo build --profile $(PROFILE) $(PACKAGES) --bins

build: ## builds sender, platform, test kit and all tests
	cargo build --profile $(PROFILE) $(PACKAGES) --all-targets

ext: ## builds the extension
	cargo $(EXT_CONFIG) build --profile $(PROFILE) -p scry_backfill_ext --lib $(EXT_FEATURES)

ext-stage: ## packs the extension below target/stage, where tests and demo find it
	cargo pgrx package -p scry_backfill_ext --profile $(PROFILE) --pg-config $(PG_CONFIG) --features failpoints --out-dir $(TARGET)/stage

unit: ## tests of one program: pure logic, scripted peers, the platform against a PostgreSQL
	cargo test --profile $(PROFILE) $(PACKAGES) -- --skip e2e::
	cargo test --profile $(PROFILE) -p scry_backfill_ext --lib $(EXT_FEATURES)

in-server: ## regression SQL inside a server with the extension preloaded
	.ci/e2e e2e::in_server

e2e: ## in-server and end-to-end tests; T=name runs those whose name contains it
	.ci/e2e $(T)

soak: ext-stage build ## random histories: SEEDS seeds (10) of STEPS steps (2000) from SEED on
	.ci/soak

# How many seeds and minutes a storm has, how often `make kills` kills.
SEEDS ?= 3
MINUTES ?= 1
N ?= 1000

storm: ext-stage build ## random faults of every part, SEEDS=n storms of MINUTES=m; every failpoint in every way
	SCRY_STORM_SEEDS=$(SEEDS) SCRY_STORM_MINUTES=$(MINUTES) .ci/e2e --ignored a_storm_passes
	.ci/e2e --ignored every_step_fails_in_every_way

kills: ext-stage build ## N=1000 kills of the platform in a live stream: 0 lost, 0 doubled
	SCRY_KILLS=$(N) .ci/e2e --ignored kills_of_the_platform

install: ## installs extension, scry_sender and scry_platform into PG_CONFIG's directories
	cargo build --release -p scry_sender -p scry_platform
	sudo=; [ -w "$$($(PG_CONFIG) --pkglibdir)" ] || sudo=sudo; \
	cargo pgrx install -p scry_backfill_ext --release --pg-config $(PG_CONFIG) $${sudo:+--sudo}; \
	$$sudo install -m 755 $(TARGET)/release/scry_sender $(TARGET)/release/scry_platform "$$($(PG_CONFIG) --bindir)"

bench: ## every measurement of bench/README.md, beside its peers
	bench/peers
	bench/run

audit: ## licenses, sources and known holes of the dependencies, by cargo-deny
	@cargo deny --version >/dev/null 2>&1 || { echo "no cargo-deny: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny check

fmt: ## formats the code
	cargo fmt --all

lint: ## checks the format, clippy for all crates, warnings being errors, and that what is installed has no failpoints
	@! cargo tree -e normal -p scry_sender -p scry_platform --prefix none | grep '^fail ' \
		|| { echo "lint: sender or platform would be installed with failpoints"; exit 1; }
	cargo fmt --all --check
	cargo clippy --profile $(PROFILE) $(PACKAGES) --all-targets -- -D warnings
	cargo $(EXT_CONFIG) clippy --profile $(PROFILE) -p scry_backfill_ext --lib $(EXT_FEATURES) -- -D warnings
