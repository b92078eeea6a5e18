/* Every product of a preset's training step, once, as src/model calls them; then what was chosen for it. */
#include "src/bench/plans.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/bench/random.h"
#include "src/comm/device.h"
#include "src/config/config.h"

struct layer {
    const char *name;
    size_t rows, in_dim, out_dim;
    bool no_bias;           /* fc1's is in gelu_forward and gelu_backward */
    bool no_input_gradient; /* pixels have none */
};
enum { LAYERS = 6 };

struct bench {
    const struct bench_plans *options;
    const struct kernels *kernels;
    struct context *ctx;
    const char *preset;
    size_t printed; /* choices that were printed */
};

static void list_layers(struct layer layers[LAYERS], const struct config *config, size_t batch, size_t classes)
{
    size_t patch = (size_t)config->model.patch_size, grid = 224 / patch, patches = grid * grid;
    size_t rows = batch * (patches + 1), dim = (size_t)config->model.dim, hidden = config_hidden_dim(config);
    const struct layer list[LAYERS] = {
        {"patch_embed", batch * patches, 3 * patch * patch, dim, false, true},
        {"qkv", rows, dim, 3 * dim, false, false},
        {"proj", rows, dim, dim, false, false},
        {"fc1", rows, dim, hidden, true, false},
        {"fc2", rows, hidden, dim, false, false},
        {"head", batch, dim, classes, false, false},
    };
    memcpy(layers, list, sizeof list);
}

/* ---- printing ---- */

static void print_json(const struct bench *bench, const struct layer *layer, const char *pass,
                       const struct product_choice *choice)
{
    char identity[PRODUCTS_IDENTITY_BYTES];
    bench->kernels->products->identity(bench->ctx, identity, sizeof identity);
    char *line = product_choice_format(choice, identity);
    printf("{\"preset\": \"%s\", \"batch\": %zu, \"layer\": \"%s\", \"pass\": \"%s\", \"choice\": %s}\n", bench->preset,
           bench->options->batch, layer->name, pass, line ? line : "null");
    free(line);
}

static void print_row(const struct bench *bench, const struct layer *layer, const char *pass,
                      const struct product_choice *choice)
{
    const struct product *p = &choice->product;
    double flop = 2.0 * (double)p->m * (double)p->n * (double)p->k;
    printf("%-10s %-11s %-8s %6zu %7zu %7zu %-11s %-7s %4d %5d %6d %7d %9.1f %3d/%-3d", bench->preset, layer->name,
           pass, (size_t)p->m, (size_t)p->n, (size_t)p->k, product_epilogue_name((enum product_epilogue)p->epilogue),
           product_way_name(choice->way), choice->id, choice->tile, choice->stages, choice->split_k,
           (double)choice->workspace_bytes / (1 << 20), choice->refused, choice->offered);
    if (choice->time_s > 0)
        printf(" %9.1f %9.1f %8.1f\n", 1e6 * choice->first_s, 1e6 * choice->time_s, 1e-12 * flop / choice->time_s);
    else
        printf(" %9s %9s %8s\n", "-", "-", "-");
}

static void print_head(void)
{
    printf("%-10s %-11s %-8s %6s %7s %7s %-11s %-7s %4s %5s %6s %7s %9s %7s %9s %9s %8s\n", "preset", "layer", "pass",
           "m", "n", "k", "epilogue", "way", "id", "tile", "stages", "split-k", "work MiB", "refused", "first us", "us",
           "TFLOP/s");
}

/* The products that were met since the last call. */
static void print_new(struct bench *bench, const struct layer *layer, const char *pass)
{
    const struct kernels_products *products = bench->kernels->products;
    for (; bench->printed < products->count(bench->ctx); bench->printed++) {
        struct product_choice choice;
        products->get(bench->ctx, bench->printed, &choice);
        if (bench->options->json)
            print_json(bench, layer, pass, &choice);
        else
            print_row(bench, layer, pass, &choice);
    }
    fflush(stdout);
}

/* ---- running ---- */

/* Device tensors of a layer, freed in the order of `memory`. */
enum { IN, WEIGHT, BIAS, OUT, IN_GRADIENT, WEIGHT_GRADIENT, BIAS_GRADIENT, MEMORIES };

static bool allocate(struct bench *bench, const struct layer *layer, void *memory[MEMORIES], struct error *error)
{
    enum dtype dtype = bench->options->dtype;
    const struct {
        size_t count;
        enum dtype dtype;
    } tensors[MEMORIES] = {[IN] = {layer->rows * layer->in_dim, dtype},
                           [WEIGHT] = {layer->out_dim * layer->in_dim, dtype},
                           [BIAS] = {layer->out_dim, dtype},
                           [OUT] = {layer->rows * layer->out_dim, dtype},
                           [IN_GRADIENT] = {layer->rows * layer->in_dim, dtype},
                           [WEIGHT_GRADIENT] = {layer->out_dim * layer->in_dim, DTYPE_FLOAT32},
                           [BIAS_GRADIENT] = {layer->out_dim, DTYPE_FLOAT32}};
    for (int i = 0; i < MEMORIES; i++)
        if (!bench_random(bench->kernels, bench->ctx, &memory[i], tensors[i].count, tensors[i].dtype, error))
            return false;
    return true;
}

/* Forward, then the two halves of the backward pass, so that each product is printed with its pass. */
static bool run_layer(struct bench *bench, const struct layer *layer, void *const memory[MEMORIES], struct error *error)
{
    const struct kernels *kernels = bench->kernels;
    struct linear_forward forward = {.out = memory[OUT],
                                     .in = memory[IN],
                                     .weight = memory[WEIGHT],
                                     .bias = layer->no_bias ? NULL : memory[BIAS],
                                     .rows = layer->rows,
                                     .in_dim = layer->in_dim,
                                     .out_dim = layer->out_dim};
    struct linear_backward backward = {.in_gradient = memory[IN_GRADIENT],
                                       .out_gradient = memory[OUT],
                                       .in = memory[IN],
                                       .weight = memory[WEIGHT],
                                       .rows = layer->rows,
                                       .in_dim = layer->in_dim,
                                       .out_dim = layer->out_dim};
    if (!kernels->linear_forward(bench->ctx, &forward, error))
        return false;
    print_new(bench, layer, "forward");
    if (!layer->no_input_gradient && !kernels->linear_backward(bench->ctx, &backward, error))
        return false;
    print_new(bench, layer, "input");
    backward.in_gradient = NULL;
    backward.weight_gradient = memory[WEIGHT_GRADIENT];
    backward.bias_gradient = layer->no_bias ? NULL : memory[BIAS_GRADIENT];
    if (!kernels->linear_backward(bench->ctx, &backward, error))
        return false;
    print_new(bench, layer, "weights");
    return kernels->synchronise(bench->ctx, error);
}

static bool run_layers(struct bench *bench, const struct layer layers[LAYERS], struct error *error)
{
    bool ok = true;
    for (int i = 0; ok && i < LAYERS; i++) {
        void *memory[MEMORIES] = {NULL};
        ok = allocate(bench, &layers[i], memory, error) && run_layer(bench, &layers[i], memory, error);
        for (int j = 0; j < MEMORIES; j++)
            if (memory[j])
                bench->kernels->release(bench->ctx, memory[j]);
    }
    return ok;
}

static bool run_preset(struct bench *bench, int device, struct error *error)
{
    enum { CLASSES = 1000 };
    struct config config = {.model = {.mlp_ratio = 4}};
    struct layer layers[LAYERS];
    if (!config_preset(&config, bench->preset))
        return error_input(error,
                           "--preset: '%s' is not known (vit_tiny, vit_small, vit_base, vit_large, vit_huge, all)",
                           bench->preset);
    list_layers(layers, &config, bench->options->batch, CLASSES);
    struct context_options context = {.dtype = bench->options->dtype,
                                      .device = device,
                                      .workload = {.batch = bench->options->batch,
                                                   .patches = layers[0].rows / bench->options->batch,
                                                   .patch_dim = layers[0].in_dim,
                                                   .dim = layers[0].out_dim,
                                                   .hidden = layers[4].in_dim,
                                                   .heads = (size_t)config.model.heads,
                                                   .classes = CLASSES}};
    if (!bench->kernels->open(&bench->ctx, &context, error))
        return false;
    bench->printed = 0;
    bench->kernels->products->set_mode(bench->ctx, bench->options->mode);
    bool ok = run_layers(bench, layers, error);
    bench->kernels->close(bench->ctx);
    return ok;
}

static bool run(const struct comm *comm, const struct bench_plans *options, struct error *error)
{
    static const char *const presets[] = {"vit_tiny", "vit_small", "vit_base", "vit_large"};
    struct bench bench = {.options = options};
    int device;
    if (comm_world_size(comm) > 1)
        return error_input(error, "--plans is for one rank");
    if (!device_choose(&bench.kernels, &device, options->device, comm, error))
        return false;
    if (!bench.kernels->products)
        return error_input(error, "--plans: products are chosen on a GPU only; give --device cuda");
    if (!options->json)
        print_head();
    bool all = strcmp(options->preset, "all") == 0, ok = true;
    for (size_t i = 0; ok && i < (all ? sizeof presets / sizeof *presets : 1); i++) {
        bench.preset = all ? presets[i] : options->preset;
        ok = run_preset(&bench, device, error);
    }
    return ok;
}

bool bench_plans(struct comm *comm, const struct bench_plans *options, struct error *error)
{
    return comm_agree(comm, run(comm, options, error), error);
}
