# The front door: a list of commands. Sources and flags live in CMakeLists.txt, the builds in CMakePresets.json.
#   make PRESET=portable test     any target with another preset (default, portable, debug, sanitize)
#   make CUDA=1                   insists on the CUDA operations (CUDA=0: leaves them out; otherwise: if nvcc is found)
PRESET ?= default
JOBS   ?= $(shell nproc)
WERROR ?= OFF

CUDA   ?=
cuda      = $(if $(CUDA),$(if $(filter 0 OFF,$(CUDA)),OFF,ON),AUTO)

# Ninja where it is installed: generated makefiles finish one library before they start the next. A build folder that exists keeps its generator.
generator = $(if $(shell command -v ninja 2>/dev/null),CMAKE_GENERATOR=$(or $(CMAKE_GENERATOR),Ninja))
CONFIGURE = $(generator) cmake --preset $(1) -DCCDREC_WERROR=$(WERROR) $(if $(filter keep,$(CUDA)),,-DCCDREC_CUDA=$(cuda))
BUILD     = cmake --build --preset $(1) -j $(JOBS)
CTEST     = ctest --preset $(1) -j $(JOBS)
dir       = build$(if $(filter-out default,$(1)),-$(1))

.PHONY: all deps demo test test-all test-cuda memcheck bench busy bench-gpu race profile sanitize format lint install tour growth instructions clean help
.NOTPARALLEL:

all: deps            ## install what is missing, build everything into build/
	@$(call CONFIGURE,$(PRESET))
	@$(call BUILD,$(PRESET))

deps:
	@tools/install-deps.sh build

# Without CUDA unless a GPU is visible: quicker to build. A program built before keeps what it has, so that nothing is compiled again.
demo: CUDA := $(or $(CUDA),$(if $(shell nvidia-smi -L 2>/dev/null),1,$(if $(wildcard build/ccdrec),keep,0)))
demo: deps           ## build, generate a data set, train eight systems, print their table (without CUDA unless a GPU is visible: quicker)
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target ccdrec
	@tools/demo.sh

test: deps           ## the whole suite
	@$(call CONFIGURE,$(PRESET))
	@$(call BUILD,$(PRESET)) --target tests
	@$(call CTEST,$(PRESET)) -LE exhaustive

test-all: deps       ## the same, with every model and schedule where the suite takes some that stand for the others
	@$(call CONFIGURE,$(PRESET))
	@$(call BUILD,$(PRESET)) --target tests
	@CCDREC_TEST_SCHEDULES=all $(call CTEST,$(PRESET))

test-cuda:           ## the operation tests on the GPU; fails without one
	@$(MAKE) --no-print-directory all CUDA=1
	@$(call dir,$(PRESET))/test_cuda --gtest_brief=1

memcheck:            ## compute-sanitizer over the operation tests on the GPU
	@$(MAKE) --no-print-directory all CUDA=1
	@CCDREC_TEST_POOL=0 CCDREC_TEST_DEVICES=cuda compute-sanitizer --tool memcheck --error-exitcode 9 $(call dir,$(PRESET))/test_cuda --gtest_brief=1

tour: all            ## run the commands of docs/tour.md again and write what they print into it
	@CCDREC_UPDATE_TOUR=1 $(call dir,$(PRESET))/test_host --gtest_brief=1 --gtest_filter='Tour.PrintsWhatTheProgramPrints'
	@$(call dir,$(PRESET))/test_host --gtest_brief=1 --gtest_filter='Tour.*'

# The tests' own objects are those of build/, where CUDA stays as it is.
sanitize: CUDA := $(or $(CUDA),$(if $(wildcard build/CMakeCache.txt),keep,0))
sanitize: deps       ## address and undefined-behaviour sanitizers over the fast tests (build-sanitize/)
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target test_objects
	@$(call CONFIGURE,sanitize)
	@$(call BUILD,sanitize)
	@$(call CTEST,sanitize)

bench:               ## kernel and epoch benches beside the machine's limits; rewrites bench/results/
	@tools/install-deps.sh build bench
	@$(call CONFIGURE,default)
	@$(call BUILD,default)
	@bench/cpu.sh

growth:              ## epoch time and memory as the data grow to Electronics size, half an hour; rewrites bench/results/growth.*
	@tools/install-deps.sh build
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target bench_growth
	@build/bench_growth --prepare
	@build/bench_growth --fresh

instructions:        ## instructions of an epoch (callgrind) beside the committed ones; UPDATE=1 commits new ones to the file
	@tools/install-deps.sh build instructions
	@bench/instructions.sh $(if $(UPDATE),--update)

race: deps           ## this program beside its PyTorch baselines, epoch by epoch in turn (RACE="--presets demo --rounds 5"); writes bench/results/race-*
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target ccdrec bench_race
	@bench/race.sh $(RACE)

busy: deps           ## the program beside other programs, under a quota and twice at once, ten minutes (BUSY="--old PROGRAM"); writes bench/results/busy.*
	@$(call CONFIGURE,default)
	@$(call BUILD,default) --target ccdrec bench_busy
	@python3 bench/busy.py $(BUSY)

bench-gpu:           ## all a GPU can tell, under nine minutes; writes bench/results/gpu-*
	@bench/gpu.sh

profile:             ## Nsight Systems and Nsight Compute over CCDRec on the GPU (docs/profiling.md)
	@$(MAKE) --no-print-directory all CUDA=1
	@tools/profile.sh

format:              ## lay out the C++ files with clang-format
	@tools/install-deps.sh lint
	@tools/lint.sh fix

lint: deps           ## check the layout, then clang-tidy
	@tools/install-deps.sh lint
	@tools/lint.sh format
	@tools/lint.sh tidy

install: all         ## copy the program to /usr/local/bin (DESTDIR and PREFIX are respected)
	@cmake --install $(call dir,$(PRESET)) --prefix $(or $(PREFIX),/usr/local)

clean:               ## remove the build folders
	rm -rf build build-portable build-debug build-sanitize build-gpu profile

help:                ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r t d; do printf '  make %-12s %s\n' "$$t" "$$d"; done
