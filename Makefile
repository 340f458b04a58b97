# The front door: a list of commands. Sources and flags live in CMakeLists.txt, the builds in CMakePresets.json.
#   make PRESET=portable test     any target with another preset (default, portable, debug, sanitize)
PRESET ?= default
JOBS   ?= $(shell nproc)
WERROR ?= OFF

CONFIGURE = cmake --preset $(1) -DCCDREC_WERROR=$(WERROR)
BUILD     = cmake --build --preset $(1) -j $(JOBS)
CTEST     = ctest --preset $(1) -j $(JOBS)
dir       = build$(if $(filter-out default,$(1)),-$(1))

.PHONY: all deps demo test bench sanitize format lint install clean help
.NOTPARALLEL:

all: deps            ## install what is missing, build everything into build/
	@$(call CONFIGURE,$(PRESET))
	@$(call BUILD,$(PRESET))

deps:
	@tools/install-deps.sh build

demo: deps           ## build, generate a data set, train four models, print the table (no CUDA unless a GPU is visible; none in this version)
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target ccdrec
	@tools/demo.sh

test: all            ## the whole suite
	@$(call CTEST,$(PRESET))

sanitize: deps       ## address and undefined-behaviour sanitizers over the fast tests (build-sanitize/)
	@$(call CONFIGURE,sanitize)
	@$(call BUILD,sanitize)
	@$(call CTEST,sanitize)

bench:               ## kernel and epoch benches beside the machine's limits; rewrites bench/results/
	@tools/install-deps.sh build bench
	@$(call CONFIGURE,default)
	@$(call BUILD,default)
	@bench/cpu.sh

format:              ## lay out the C++ files with clang-format
	@tools/install-deps.sh lint
	@tools/lint.sh fix

lint: deps           ## check the layout, then clang-tidy
	@tools/install-deps.sh lint
	@tools/lint.sh format
	@$(call CONFIGURE,default) >/dev/null
	@tools/lint.sh tidy

install: all         ## copy the program to /usr/local/bin (DESTDIR and PREFIX are respected)
	@cmake --install $(call dir,$(PRESET)) --prefix $(or $(PREFIX),/usr/local)

clean:               ## remove the build folders
	rm -rf build build-portable build-debug build-sanitize

help:                ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r t d; do printf '  make %-10s %s\n' "$$t" "$$d"; done
