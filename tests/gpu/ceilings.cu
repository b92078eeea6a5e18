/* ceilings MIB: what a GPU can do at best, as JSON lines: copies of MIB on the device, up from and down to pinned
 * memory, and what a launch costs the host and the device. For tests/gpu/first_contact; the CUDA runtime is all that it
 * needs. */
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <cuda_runtime.h>

#define TRY(call)                                                                                            \
    do {                                                                                                     \
        cudaError_t status = (call);                                                                         \
        if (status != cudaSuccess) {                                                                         \
            fprintf(stderr, "error: ceilings: %s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status)); \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

enum { ROUNDS = 9, LAUNCHES = 1000 };

/* Not zeros: a copy of equal bytes may be faster. */
__global__ void fill(unsigned *numbers, size_t count)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x)
        numbers[i] = (unsigned)i * 2654435761u;
}

__global__ void nothing()
{
}

/* Median seconds of one copy by the device's events. */
static double copy_s(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    std::vector<float> times;
    cudaEvent_t begin, end;
    TRY(cudaEventCreate(&begin));
    TRY(cudaEventCreate(&end));
    for (int round = 0; round <= ROUNDS; round++) { /* the first warms up */
        float ms = 0;
        TRY(cudaEventRecord(begin));
        TRY(cudaMemcpyAsync(to, from, bytes, kind));
        TRY(cudaEventRecord(end));
        TRY(cudaEventSynchronize(end));
        TRY(cudaEventElapsedTime(&ms, begin, end));
        if (round > 0)
            times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    return 1e-3 * times[ROUNDS / 2];
}

static void print(const char *name, double value, const char *unit)
{
    printf("{\"name\": \"%s\", \"value\": %.5g, \"unit\": \"%s\"}\n", name, value, unit);
}

/* Host: how long queuing takes; device: how far apart the kernels of a full queue are. */
static void launches()
{
    cudaEvent_t begin, end;
    float ms = 0;
    TRY(cudaEventCreate(&begin));
    TRY(cudaEventCreate(&end));
    nothing<<<1, 32>>>();
    TRY(cudaDeviceSynchronize());
    auto from = std::chrono::steady_clock::now();
    TRY(cudaEventRecord(begin));
    for (int i = 0; i < LAUNCHES; i++)
        nothing<<<1, 32>>>();
    auto queued = std::chrono::steady_clock::now();
    TRY(cudaGetLastError());
    TRY(cudaEventRecord(end));
    TRY(cudaEventSynchronize(end));
    TRY(cudaEventElapsedTime(&ms, begin, end));
    print("launch, host", 1e6 * std::chrono::duration<double>(queued - from).count() / LAUNCHES, "us");
    print("launch, device", 1e3 * ms / LAUNCHES, "us");
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], nullptr, 10) : 1024) << 20;
    unsigned *first, *second;
    void *pinned;
    TRY(cudaMalloc(&first, bytes));
    TRY(cudaMalloc(&second, bytes));
    TRY(cudaMallocHost(&pinned, bytes));
    fill<<<1024, 256>>>(first, bytes / sizeof *first);
    TRY(cudaGetLastError());
    print("copy", 2e-9 * (double)bytes / copy_s(second, first, bytes, cudaMemcpyDeviceToDevice), "GB/s");
    print("copy to the host", 1e-9 * (double)bytes / copy_s(pinned, first, bytes, cudaMemcpyDeviceToHost), "GB/s");
    print("copy from the host", 1e-9 * (double)bytes / copy_s(second, pinned, bytes, cudaMemcpyHostToDevice), "GB/s");
    launches();
    return 0;
}
