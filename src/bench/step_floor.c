/* What a step's ops move and multiply: tables of ops, one row each, and the sums over a model. */
#include "src/bench/step_floor.h"

#include <string.h>

#include "src/model/parameters.h"

enum { NUMBER_BYTES = 2, GRADIENT_BYTES = 4 }; /* an activation or working weight; a parameter's gradient */

/* What a tensor has a row for, and how wide a row is. */
enum rows { IMAGES, PATCHES, TOKENS };
enum width { DIM, KEY_VALUE, QKV, HIDDEN, PATCH, CLASSES, WIDTHS };

struct shape {
    double rows[TOKENS + 1], widths[WIDTHS], tokens;
    size_t depth, parameters;
};

/* How often an op runs: for each block but the last, for the last, whose tail has CLS rows alone, and besides. */
struct calls {
    size_t a_block, last, besides;
};
#define A_BLOCK \
    {           \
        1, 0, 0 \
    }
#define LAST    \
    {           \
        0, 1, 0 \
    }
#define ONCE    \
    {           \
        0, 0, 1 \
    }

/* out = in W^T: forward, the gradient of `in` (where something learns before it), and W's, which is written (by a
 * step's first micro-step). */
static const struct matrix_product {
    const char *name;
    enum rows rows;
    enum width in, out;
    struct calls calls;
    bool first;
} products[] = {
    {"patch embedding", PATCHES, PATCH, DIM, ONCE, true},
    {"qkv", TOKENS, DIM, QKV, A_BLOCK, false},
    {"proj", TOKENS, DIM, DIM, A_BLOCK, false},
    {"fc1", TOKENS, DIM, HIDDEN, A_BLOCK, false},
    {"fc2", TOKENS, HIDDEN, DIM, A_BLOCK, false},
    {"last block's keys, values", TOKENS, DIM, KEY_VALUE, LAST, false},
    {"last block's query", IMAGES, DIM, DIM, LAST, false},
    {"last block's proj", IMAGES, DIM, DIM, LAST, false},
    {"last block's fc1", IMAGES, DIM, HIDDEN, LAST, false},
    {"last block's fc2", IMAGES, HIDDEN, DIM, LAST, false},
    {"head", IMAGES, DIM, CLASSES, ONCE, false},
};

/* All else that runs over activations: how many tensors of this shape a call reads and writes. */
static const struct pass {
    const char *name;
    enum floor_group group;
    enum rows rows;
    enum width width;
    struct calls calls;
    double tensors;
    double products; /* of each token with all tokens; in the last block with CLS */
} passes[] = {
    /* Forward: sum and branch in; sum and norm out. Backward: the sum and two gradients in; one out (where inputs are
     * not kept, the norm again too). */
    {"residual + norm, forward", FLOOR_NORMS, TOKENS, DIM, {2, 0, 0}, 4, 0},
    {"residual + norm, backward", FLOOR_NORMS, TOKENS, DIM, {2, 0, 1}, 4, 0},
    {"last block's residual + norm, forward", FLOOR_NORMS, IMAGES, DIM, {0, 2, 0}, 4, 0},
    {"last block's residual + norm, backward", FLOOR_NORMS, IMAGES, DIM, {0, 2, 0}, 4, 0},
    {"first norm, forward", FLOOR_NORMS, TOKENS, DIM, ONCE, 2, 0},
    /* Backward: gradient and pre-activation in; gradient out (where inputs are not kept, the activation again too). */
    {"GELU, forward", FLOOR_GELU, TOKENS, HIDDEN, A_BLOCK, 2, 0},
    {"GELU, backward", FLOOR_GELU, TOKENS, HIDDEN, A_BLOCK, 3, 0},
    {"last block's GELU, forward", FLOOR_GELU, IMAGES, HIDDEN, LAST, 2, 0},
    {"last block's GELU, backward", FLOOR_GELU, IMAGES, HIDDEN, LAST, 3, 0},
    /* Forward: Q K V in, O out. Backward: Q K V O dO in, dQ dK dV out. In the last block K V, and dK dV. */
    {"attention, forward", FLOOR_ATTENTION, TOKENS, DIM, A_BLOCK, 4, 2},
    {"attention, backward", FLOOR_ATTENTION, TOKENS, DIM, A_BLOCK, 8, 5},
    {"last block's attention, forward", FLOOR_ATTENTION, TOKENS, DIM, LAST, 2, 2},
    {"last block's attention, backward", FLOOR_ATTENTION, TOKENS, DIM, LAST, 4, 5},
    {"patches, from bytes", FLOOR_ENDS, PATCHES, PATCH, ONCE, 1.5, 0},
    {"embedding, forward", FLOOR_ENDS, TOKENS, DIM, ONCE, 2, 0},
    {"embedding, backward", FLOOR_ENDS, TOKENS, DIM, ONCE, 2, 0},
    {"CLS gradient among zeros", FLOOR_ENDS, TOKENS, DIM, ONCE, 1, 0},
};

/* What runs over all parameters. */
static const struct sweep {
    const char *name;
    double bytes; /* a parameter */
} sweeps[] = {
    {"gradient norm", 4}, {"AdamW", 30}, /* master, m, v in and out; gradient in; working copy out */
};

const char *const floor_group_names[FLOOR_GROUPS] = {"products", "norms", "gelu", "attention", "ends", "optimiser"};

static void add(struct step_floor *out, const char *name, const char *part, enum floor_group group, size_t calls,
                double bytes, double flop)
{
    struct floor_row *row = &out->rows[out->count++];
    double memory_s = bytes / FLOOR_BYTES_PER_S, product_s = flop / FLOOR_FLOP_PER_S;
    snprintf(row->name, sizeof row->name, "%s%s", name, part);
    row->group = group;
    row->calls = calls;
    row->bytes = (double)calls * bytes;
    row->flop = (double)calls * flop;
    row->seconds = (double)calls * (memory_s > product_s ? memory_s : product_s);
    out->bytes += row->bytes;
    out->flop += row->flop;
    out->seconds += row->seconds;
    out->group_s[group] += row->seconds;
}

static size_t calls_of(const struct calls *calls, const struct shape *shape)
{
    return calls->a_block * (shape->depth - 1) + calls->last + calls->besides;
}

static void add_product(struct step_floor *out, const struct matrix_product *product, const struct shape *shape)
{
    double rows = shape->rows[product->rows], in = shape->widths[product->in], width = shape->widths[product->out];
    double flop = 2 * rows * in * width, activations = rows * (in + width) * NUMBER_BYTES, weights = in * width;
    size_t calls = calls_of(&product->calls, shape);
    add(out, product->name, ", forward", FLOOR_PRODUCTS, calls, activations + weights * NUMBER_BYTES, flop);
    if (!product->first)
        add(out, product->name, ", its input's gradient", FLOOR_PRODUCTS, calls, activations + weights * NUMBER_BYTES,
            flop);
    add(out, product->name, ", its weight's gradient", FLOOR_PRODUCTS, calls, activations + weights * GRADIENT_BYTES,
        flop);
}

static void add_pass(struct step_floor *out, const struct pass *pass, const struct shape *shape)
{
    double numbers = shape->rows[pass->rows] * shape->widths[pass->width];
    double others = pass->calls.last ? 1 : shape->tokens;
    add(out, pass->name, "", pass->group, calls_of(&pass->calls, shape), pass->tensors * numbers * NUMBER_BYTES,
        pass->products * 2 * numbers * others);
}

static bool shape_of(struct shape *shape, const struct config *config, size_t batch, struct error *error)
{
    struct parameters parameters;
    if (!parameters_plan(&parameters, config, 3, error))
        return false;
    double side = (double)(config->model.image_size / config->model.patch_size), dim = (double)config->model.dim;
    *shape = (struct shape){.rows = {[IMAGES] = (double)batch,
                                     [PATCHES] = (double)batch * side * side,
                                     [TOKENS] = (double)batch * (side * side + 1)},
                            .widths = {[DIM] = dim,
                                       [KEY_VALUE] = 2 * dim,
                                       [QKV] = 3 * dim,
                                       [HIDDEN] = (double)config_hidden_dim(config),
                                       [PATCH] = (double)(config->model.patch_size * config->model.patch_size * 3),
                                       [CLASSES] = (double)config->model.classes},
                            .tokens = side * side + 1,
                            .depth = (size_t)config->model.depth,
                            .parameters = parameters.total};
    parameters_free(&parameters);
    return true;
}

bool step_floor(struct step_floor *out, const struct config *config, size_t batch, struct error *error)
{
    struct shape shape;
    memset(out, 0, sizeof *out);
    if (!shape_of(&shape, config, batch, error))
        return false;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        add_product(out, &products[i], &shape);
    for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
        add_pass(out, &passes[i], &shape);
    for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++)
        add(out, sweeps[i].name, "", FLOOR_OPTIMISER, 1, sweeps[i].bytes * (double)shape.parameters, 0);
    return true;
}

void step_floor_print(const struct step_floor *floor, const char *title, size_t batch, FILE *out)
{
    fprintf(out, "%s, bf16, %zu images: what a step's ops take at least, at %.1f TB/s and %.0f TFLOP/s (modelled)\n",
            title, batch, 1e-12 * FLOOR_BYTES_PER_S, 1e-12 * FLOOR_FLOP_PER_S);
    fprintf(out, "%-40s %5s %9s %9s %9s  %s\n", "op", "calls", "GB", "TFLOP", "ms", "bound by");
    for (size_t i = 0; i < floor->count; i++) {
        const struct floor_row *row = &floor->rows[i];
        fprintf(out, "%-40s %5zu %9.3f %9.3f %9.3f  %s\n", row->name, row->calls, 1e-9 * row->bytes, 1e-12 * row->flop,
                1e3 * row->seconds,
                row->bytes / FLOOR_BYTES_PER_S < row->flop / FLOOR_FLOP_PER_S ? "products" : "memory");
    }
    for (int group = 0; group < FLOOR_GROUPS; group++)
        fprintf(out, "%-65s %9.3f\n", floor_group_names[group], 1e3 * floor->group_s[group]);
    fprintf(out, "%-40s %5s %9.3f %9.3f %9.3f  %.0f images/s\n", "together", "", 1e-9 * floor->bytes,
            1e-12 * floor->flop, 1e3 * floor->seconds, (double)batch / floor->seconds);
}

void step_floor_print_json(const struct step_floor *floor, const char *preset, size_t batch, FILE *out)
{
    fprintf(
        out,
        "{\"preset\": \"%s\", \"precision\": \"bf16\", \"batch\": %zu, \"floor_ms\": %.6g, \"images_per_s\": %.6g, ",
        preset, batch, 1e3 * floor->seconds, (double)batch / floor->seconds);
    fprintf(out, "\"gb\": %.6g, \"tflop\": %.6g, \"groups_ms\": {", 1e-9 * floor->bytes, 1e-12 * floor->flop);
    for (int group = 0; group < FLOOR_GROUPS; group++)
        fprintf(out, "%s\"%s\": %.6g", group ? ", " : "", floor_group_names[group], 1e3 * floor->group_s[group]);
    fprintf(out, "}}\n");
}
