# The CUDA backend, included by the Makefile where nvcc is found.
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/o/%.cu.o)
# PTX for compute_80 beside machine code: what GPUs newer than this toolkit compile from.
CUDA_ARCHS   ?= 80 86 89 90 100 120
NVCC_FLAGS   := -std=c++17 -O3 -lineinfo -cudart shared -I. -Xcompiler -Wall,-Wextra \
	$(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_80,code=compute_80
ifneq ($(CUDA_SOURCES),)
CUDA_LIBS    := -L$(CUDA_HOME)/lib64 -lcudart -lcublasLt -lcublas -lnccl -lstdc++
else
OUR_CFLAGS   += -DQUEST_NO_CUDA
endif

$(BUILD)/o/%.cu.o: %.cu Makefile kernels/cuda/cuda.mk
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
