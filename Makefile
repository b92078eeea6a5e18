# QUEST-Train. `make help` lists the targets.
#   CUDA=0|1        build the CUDA backend (default: 1 where nvcc is found)
#   MARCH=native    CPU to compile for; x86-64-v3 for a cluster of mixed nodes
#   SANITIZE=address,undefined   instrumented build in build/san; SANITIZE=thread in build/tsan
#   PREFIX, DESTDIR for `make install`
CC      ?= gcc
MARCH   ?= native
PREFIX  ?= /usr/local
NVCC    ?= $(shell command -v nvcc 2>/dev/null)
CUDA    ?= $(if $(NVCC),1,0)
BUILD   := build$(if $(SANITIZE),$(if $(filter thread,$(SANITIZE)),/tsan,/san))
VERSION := 0.1.0

PACKAGES := ompi-c jansson yaml-0.1 libjpeg libturbojpeg vips libprotobuf-c libarchive
HDF5_CFLAGS := $(shell pkg-config --cflags hdf5-openmpi 2>/dev/null || echo -I/usr/include/hdf5/openmpi)
HDF5_LIBS   := $(shell pkg-config --libs hdf5-openmpi 2>/dev/null || echo -lhdf5_openmpi)

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
CFLAGS   ?= -O3 -g
OUR_CFLAGS := -std=c11 -D_GNU_SOURCE -fopenmp -fno-math-errno -march=$(MARCH) $(WARNINGS) -I. -I$(BUILD)/generated -DQUEST_VERSION='"$(VERSION)"' \
	$(HDF5_CFLAGS) $(shell pkg-config --cflags $(PACKAGES)) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -Wno-error=format-truncation -Wno-error=maybe-uninitialized)
LIBS     := $(HDF5_LIBS) $(shell pkg-config --libs $(PACKAGES)) -ldnnl -lz -lm -lpthread
# Only quest-data needs libvips and libarchive; as-needed keeps them (and what they bring) out of the others.
# cpu_check runs before main(), so that nothing calls it.
LINK     := $(CC) -fopenmp -Wl,--as-needed -Wl,--undefined=cpu_check $(if $(SANITIZE),-fsanitize=$(SANITIZE))

SOURCES  := $(filter-out src/programs/quest_%,$(wildcard src/*/*.c data_loaders/*/*.c)) $(wildcard kernels/*.c kernels/cpu/*.c kernels/cpu/*/*.c)
PROGRAMS := $(patsubst src/programs/quest_%.c,$(BUILD)/bin/quest-%,$(wildcard src/programs/quest_*.c))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

NCCL     := $(wildcard src/comm/*nccl*.c)
ifeq ($(CUDA),1)
include kernels/cuda/cuda.mk
else
OUR_CFLAGS += -DQUEST_NO_CUDA
SOURCES    := $(filter-out $(NCCL),$(SOURCES))
endif

OBJECTS  := $(SOURCES:%.c=$(BUILD)/o/%.o) $(BUILD)/o/generated/src/log/tensorboard.pb-c.o $(CUDA_OBJECTS)
LIBRARY  := $(BUILD)/libquest.a

all: $(PROGRAMS)

# `make V=1` shows the commands.
Q := $(if $(V),,@)

# Other flags (CUDA=0 after a build with it, another MARCH) build everything anew: objects would not fit together.
FLAGS := $(CC) $(OUR_CFLAGS) $(CFLAGS)
ifneq ($(strip $(file <$(BUILD)/flags)),$(strip $(FLAGS)))
$(BUILD)/flags: always
endif
$(BUILD)/flags:
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS))' >$@

$(BUILD)/o/%.o: %.c Makefile $(BUILD)/flags
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# What finds out that the CPU is another one must run on it.
$(BUILD)/o/src/base/cpu_check.o: OUR_CFLAGS += -march=x86-64

# TensorBoard's messages, by protobuf-c's compiler.
$(BUILD)/generated/%.pb-c.c $(BUILD)/generated/%.pb-c.h: %.proto
	@mkdir -p $(BUILD)/generated
	$(if $(V),,@echo "  PROTO $<")
	$(Q)protoc-c --c_out=$(BUILD)/generated $<

$(BUILD)/o/generated/%.o: $(BUILD)/generated/%.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/o/src/log/event_file.o: $(BUILD)/generated/src/log/tensorboard.pb-c.h

$(BUILD)/bin/quest-norms: LIBS += -lncursesw

# The report page is put into the program by .incbin, which no compiler lists as a dependency.
$(BUILD)/o/src/norms/assets.o: $(wildcard src/norms/page/*)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/bin/quest-%: $(BUILD)/o/src/programs/quest_%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LINK  $@")
	$(Q)$(LINK) $(LDFLAGS) $< $(LIBRARY) $(LIBS) $(CUDA_LIBS) -o $@

$(BUILD)/tests/%: $(BUILD)/o/tests/unit/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LINK  $@")
	$(Q)$(LINK) $(LDFLAGS) $< $(LIBRARY) $(LIBS) $(CUDA_LIBS) -lcmocka -o $@

# This test looks at the order of these calls, and lets them fail.
$(BUILD)/tests/test_checkpoint_disk: LINK += -Wl,--wrap=fsync,--wrap=rename,--wrap=write,--wrap=posix_fadvise

# Tests against numbers of reference programs (tests/fixtures), each named after its folder there.
FIXTURES := $(patsubst tests/fixtures/%.c,$(BUILD)/tests/fixtures/%,$(wildcard tests/fixtures/test_*.c))

$(BUILD)/tests/fixtures/%: $(BUILD)/o/tests/fixtures/%.o $(BUILD)/o/tests/fixtures/fixture.o $(LIBRARY)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LINK  $@")
	$(Q)$(LINK) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) -lcmocka -o $@

unit: $(UNIT) $(FIXTURES)

# For gdb: programs and unit tests in build/debug.
debug:
	@$(MAKE) BUILD=build/debug CFLAGS='-O0 -g3' all unit

# Fuzzers (tests/fuzz): the readers of files, instrumented by clang; each takes its corpus in tests/fuzz/NAME. They need no OpenMP.
FUZZ         := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SOURCES := $(wildcard $(addsuffix /*.c,$(addprefix src/,base files config checkpoint) $(addprefix data_loaders/,image format load) kernels))
FUZZ_SOURCES += $(addprefix data_loaders/import/,tar_images.c tar_lists.c tar_names.c tar_reader.c text_lines.c)
FUZZ_OBJECTS := $(FUZZ_SOURCES:%.c=$(BUILD)/fuzz/o/%.o)
FUZZ_FLAGS   := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

$(BUILD)/fuzz/o/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(V),,@echo "  FUZZ  $<")
	$(Q)clang-14 $(filter-out -fopenmp,$(OUR_CFLAGS)) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -O1 -g -MMD -MP -c $< -o $@

$(BUILD)/fuzz/%: $(BUILD)/fuzz/o/tests/fuzz/%.o $(FUZZ_OBJECTS)
	$(if $(V),,@echo "  LINK  $@")
	$(Q)clang-14 $(FUZZ_FLAGS) -fsanitize=fuzzer $^ $(HDF5_LIBS) -ljansson -ljpeg -lyaml -larchive -lz -lm -o $@

fuzz: $(FUZZ)

# What clangd, clang-tidy and cppcheck read: how each C and .cu file is compiled. $(call entries,FILES,COMMAND) prints them.
EVERY_C := $(foreach d,src data_loaders kernels tests,$(wildcard $(d)/*.c $(d)/*/*.c $(d)/*/*/*.c))
EVERY_C := $(if $(filter 1,$(CUDA)),$(EVERY_C),$(filter-out kernels/cuda/% tests/cuda/% $(NCCL),$(EVERY_C)))
entries  = for file in $(1); do printf '{"directory": "%s", "file": "%s", "command": "%s -c %s"},\n' '$(CURDIR)' $$file \
	'$(subst ','\'',$(subst ",\",$(subst \,\\,$(filter-out ccache,$(2)))))' $$file; done

compile_commands.json: always $(patsubst %.proto,$(BUILD)/generated/%.pb-c.h,$(wildcard src/*.proto src/*/*.proto))
	@{ $(call entries,$(EVERY_C),$(CC) $(OUR_CFLAGS) $(CFLAGS)); $(call entries,$(CUDA_SOURCES),$(NVCC) $(NVCC_FLAGS)); } | \
		sed '1s/^/[/; $$s/,$$/]/' >$@

test: all
	tests/run

bench: all
	tests/bench/run

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/quest-train
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	cp -r configs launch $(DESTDIR)$(PREFIX)/share/quest-train/
	rm $(addprefix $(DESTDIR)$(PREFIX)/share/quest-train/launch/,demo test bundle) # they build a checkout
	rm -r $(DESTDIR)$(PREFIX)/share/quest-train/launch/bundled

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh')

format-check:
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh')

lint: compile_commands.json
	tests/run_lint

clean:
	rm -rf build compile_commands.json

help:
	@echo "make              programs in build/bin (CUDA=0 to leave the CUDA backend out, MARCH=x86-64-v3 for mixed nodes)"
	@echo "make test         all tests (launch/test installs what they need first)"
	@echo "make fuzz         libFuzzer programs in build/fuzz (clang-14)"
	@echo "make bench        speed of this machine beside its peers"
	@echo "make install      PREFIX=/usr/local, DESTDIR="
	@echo "make format       clang-format everything; format-check only looks"
	@echo "make lint         clang-tidy, cppcheck and shellcheck"
	@echo "make debug        programs and unit tests for gdb (-O0 -g3) in build/debug"
	@echo "make SANITIZE=address,undefined unit    instrumented build in build/san; SANITIZE=thread in build/tsan"
	@echo "make compile_commands.json              for clangd"
	@echo "make clean"

.PHONY: always all unit debug fuzz test bench install format format-check lint clean help
.SECONDARY:
-include $(shell find $(BUILD)/o -name '*.d' 2>/dev/null)
