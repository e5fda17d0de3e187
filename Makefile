# SPDX-License-Identifier: GPL-2.0-only
#
# Each target says in one line what it is for; `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
# Named after the tree's path: a virtual environment does not survive a move.
INSTALLED := $(VENV)/installed$(subst /,-,$(subst $() ,_,$(CURDIR)))
OBJECTS := $(patsubst bpf/%.bpf.c,src/xlvs/bpf/%.bpf.o,$(wildcard bpf/*.bpf.c))
# What `make test` hands to pytest: T=tests/unit, T='-k arp -x' and so on.
T ?=
# How many random histories or command lines the oracles play, and which: any number is a seed.
COUNT ?= 2000
# Which parts of the benchmark: each is a module of bench/.
BENCH ?= packet guest lab scale
# How many frames `make fuzz` mutates, unless COUNT is given.
FUZZ_COUNT := $(if $(filter command line environment,$(origin COUNT)),$(COUNT),1000000)
# How many histories keepalived and xlvsd play, unless COUNT is given: each takes a quarter of a minute.
KEEPALIVED_COUNT := $(if $(filter command line environment,$(origin COUNT)),$(COUNT),20)
SEED ?= $(shell date +%s)
# How many slots the connection table has that `make flood` floods tenfold; a power of two.
SLOTS ?= 524288
# Where the programs are that `make install` tells the system about, and what stands before every path.
BINDIR ?= $(CURDIR)/$(VENV)/bin
DESTDIR ?=

.PHONY: help build demo test oracle oracle-commands oracle-keepalived fuzz flood bench bench-cli bench-xlvsd
.PHONY: check format abi doctor-page install clean packages test-packages bench-packages

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: packages $(OBJECTS) $(INSTALLED) ## install what is missing, compile the data plane, fill .venv

demo: build ## build a lab and show Direct Routing at work in it, then tidy it away
	@$(VENV)/bin/xlvs lab demo dr

test: build test-packages ## the whole test suite; T=… for a part of it
	@if [ -n "$(T)" ]; then $(VENV)/bin/python -m pytest $(T); else scripts/test $(VENV)/bin/python; fi

oracle: build test-packages ## random histories, kernel IPVS beside xlvs; COUNT=… SEED=…
	$(VENV)/bin/python -m tests.guest.oracle --count $(COUNT) --seed $(SEED)

oracle-commands: build test-packages ## random command lines, ipvsadm beside xlvsadm; COUNT=… SEED=…
	$(VENV)/bin/python -m tests.guest.command_oracle --count $(COUNT) --seed $(SEED)

bench: build bench-packages ## how fast it is, in four parts (docs/performance.md); BENCH=packet, guest, lab or scale
	@for part in $(BENCH); do $(VENV)/bin/python -m bench.$$part; done

bench-cli: build test-packages ## xlvsadm beside ipvsadm on a large table: medians of runs in turns
	$(VENV)/bin/python -m tests.guest.bench_cli

oracle-keepalived: build test-packages ## random histories, keepalived beside xlvsd; COUNT=… SEED=…
	$(VENV)/bin/python -m tests.guest.keepalived_oracle --count $(KEEPALIVED_COUNT) --seed $(SEED)

bench-xlvsd: build test-packages ## xlvsd beside keepalived: 2,284 services, ten thousand TCP checks
	$(VENV)/bin/python -m tests.netns.bench_xlvsd
	$(VENV)/bin/python -m tests.netns.bench_beside_keepalived
	$(VENV)/bin/python -m tests.guest.bench_xlvsd

fuzz: build ## mutated frames through the packet path; COUNT=… SEED=…
	$(VENV)/bin/python -m tests.packet.mutations --count $(FUZZ_COUNT) --seed $(SEED)

flood: build ## half a minute of 200,000 SYNs a second, a table of a tenth, in namespaces; SLOTS=…
	XLVS_FLOOD_SLOTS=$(SLOTS) $(VENV)/bin/python -m pytest -q -s tests/netns/test_syn_flood.py

check: build ## ruff and mypy --strict
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy --strict

format: build ## let ruff put imports and layout in order
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

abi: packages ## write Python's view of bpf/abi.h anew
	python3 scripts/generate_abi.py

doctor-page: build ## write the list of checks in docs/doctor.md anew
	@$(VENV)/bin/python scripts/generate_doctor_page.py

install: build ## units of systemd, a rule of udev, man pages, completions; DESTDIR=… BINDIR=… (not started or enabled)
	@scripts/install-system "$(BINDIR)" "$(DESTDIR)"

clean: ## remove everything that make has made in this tree
	rm -rf $(VENV) dist src/xlvs/bpf/*.o bench/*.o bench/results .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts bench -name __pycache__ -type d -exec rm -rf {} +

packages:
	@scripts/packages build

test-packages:
	@scripts/packages test

bench-packages:
	@scripts/packages bench

src/xlvs/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h) scripts/compile-bpf | packages
	@echo "==> compiling $<"
	@scripts/compile-bpf $< $@

$(INSTALLED): pyproject.toml hatch_build.py scripts/install scripts/launcher | packages $(OBJECTS)
	@scripts/install $(VENV)
	@touch $@
