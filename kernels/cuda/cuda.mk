# The CUDA backend, included by the Makefile where nvcc is found. Host code is C; only kernels go through nvcc.
#   CUDA_ARCHS="80"   machine code for fewer GPUs (faster builds); PTX for compute_80 is always embedded, which is what
#                     GPUs newer than this toolkit, and gpusim, run from
CUDA_HOME    ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CUDA_ARCHS   ?= 80 86 89 90 100 120
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu kernels/cuda/*/*.cu)
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/o/%.cu.o)
SOURCES      += $(wildcard kernels/cuda/*.c)
OUR_CFLAGS   += -isystem $(CUDA_HOME)/include
NVCC_FLAGS   := -std=c++17 -O3 -lineinfo -cudart shared -I. -Xcompiler -Wall,-Wextra -Xptxas -v \
	$(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_80,code=compute_80
# --as-needed: quest-data starts without CUDA's libraries. cuBLAS is loaded when a GPU is opened (cublas_library.h), NCCL when
# several ranks have GPUs (src/comm/nccl_library.h). RUNPATH, so that LD_LIBRARY_PATH (gpusim) goes first.
CUDA_LIBS    := -Wl,--as-needed -Wl,--enable-new-dtags,-rpath,$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib64 \
	-lcudart -lstdc++

# ptxas reports registers and spills for each kernel and architecture; a spill in a kernel for sm_80 or sm_90 fails the
# build. The report stays beside the object, for docs/performance.md.
SPILLS := /Compiling entry function/ { kernel = $$0 } \
	/bytes spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ && kernel ~ /sm_(80|90)/ \
	{ print kernel; print; spilled = 1 } END { exit spilled }

$(BUILD)/o/%.cu.o: %.cu Makefile kernels/cuda/cuda.mk
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ 2> $(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; exit 1; }
	@grep -v -e '^ptxas info' -e 'bytes stack frame' $(@:.o=.ptxas) >&2 || true
	@awk '$(SPILLS)' $(@:.o=.ptxas) >&2 || { rm -f $@; echo "error: $<: registers are spilled (above)" >&2; exit 1; }

# Tests of the backend: `make cuda-tests` builds them, tests/cuda/run runs them on a GPU or in the simulator.
CUDA_TESTS := $(patsubst tests/cuda/%.c,$(BUILD)/tests/cuda/%,$(filter-out tests/cuda/twins.c tests/cuda/pretend%.c,$(wildcard tests/cuda/*.c)))

.DEFAULT_GOAL := all
cuda-tests: $(CUDA_TESTS) $(patsubst tests/cuda/%.c,$(BUILD)/tests/cuda/%.so,$(wildcard tests/cuda/pretend*.c))

$(BUILD)/tests/cuda/%: $(BUILD)/o/tests/cuda/%.o $(BUILD)/o/tests/cuda/twins.o $(BUILD)/libquest.a
	@mkdir -p $(@D)
	$(LINK) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) -lcmocka -o $@

# Its cuBLASLt is found before the libraries', which are loaded later.
$(BUILD)/tests/cuda/test_products: $(BUILD)/o/tests/cuda/pretend_products.o
$(BUILD)/tests/cuda/test_products: LINK += -rdynamic
# Its functions stand before NCCL's, which is searched for as if it were linked.
$(BUILD)/tests/cuda/test_gradient: LINK += -rdynamic

# For LD_PRELOAD: stands before functions of CUDA's libraries, so it links none of them.
$(BUILD)/tests/cuda/%.so: tests/cuda/%.c Makefile
	@mkdir -p $(@D)
	$(CC) -shared -fPIC -O1 $(WARNINGS) -Wno-missing-prototypes -I. -isystem $(CUDA_HOME)/include $< -ldl -o $@

.PHONY: cuda-tests
