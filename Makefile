# SPDX-License-Identifier: Apache-2.0
# A thin front: set-up is tools/setup.sh, the build is meson's, everything else is a script of its own.
#
#   SAN=address,undefined | thread   with clang's sanitizers, in build-asan/ or build-tsan/ (build, test)
#   X0_PREFIX=dir                    where the libraries are (default /opt/x0)
#   REFRESH=1                        setup: unpack the libraries again (security updates)
export X0_PREFIX ?= /opt/x0
SAN ?=
ifeq ($(SAN),)
BUILD := build
NATIVE := $(X0_PREFIX)/x0.ini
OPTIONS :=
else
# gcc's runtime is the host's and not on the way of our loader; clang's is linked in.
BUILD := build-$(if $(findstring thread,$(SAN)),tsan,$(if $(findstring address,$(SAN)),asan,ubsan))
NATIVE := $(X0_PREFIX)/x0-clang.ini
OPTIONS := -Db_sanitize=$(SAN) -Db_lundef=false
endif

.DEFAULT_GOAL := help
.PHONY: help setup build demo test check bench format fuzz soak docs install deb test-trixie clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 13

setup: ## tools and libraries (idempotent; needs root the first time) [REFRESH=1]
	@X0_REFRESH=$(REFRESH) tools/setup.sh

build: setup ## build/x0, build/x0-broker, build/vectors [SAN=address,undefined or SAN=thread]
	@tools/configure.sh $(BUILD) $(NATIVE) $(OPTIONS)
	@ninja -C $(BUILD)

demo: build ## three hosts in network namespaces, every line an assertion
	@$(BUILD)/x0 demo $(ARGS)

test: build ## every test; ends with "N passed, N failed" [SAN=...]
	@tools/test.sh $(BUILD)

check: build ## warnings, formatting, static analysis, layers, coverage
	@tools/check.sh

bench: build ## figures beside peers [ARGS=...]
	@bench/bench.py $(ARGS)

format: ## clang-format over all C sources, in place
	@find src tests tools -name '*.[ch]' | xargs clang-format-19 -i

fuzz: setup ## every fuzz target for SECONDS=30 each [TARGET=mod/name]
	@tools/fuzz.sh $(or $(SECONDS),30) $(TARGET)

soak: build ## what is too long for make test: soak tests, fuzzing 60 s each, sanitizer suites
	@tools/soak.sh $(BUILD)

docs: ## the documents as a site in build/docs; links to nowhere are errors
	@tools/docs.sh $(BUILD)

install: build ## x0, its broker, manual pages, completions to /usr/local; they use the libraries in X0_PREFIX [DESTDIR=...]
	@meson install -C $(BUILD) --no-rebuild

deb: build ## build/x0_VERSION_ARCH.deb for the Debian release this is; carries its libraries on Debian 12
	@tools/deb.sh $(BUILD)

test-trixie: ## make test in a fresh Debian 13 root (needs root)
	@tools/test-trixie.sh

clean: ## removes what was built
	rm -rf build build-*
