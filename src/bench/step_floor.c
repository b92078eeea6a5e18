/* What a step's ops move and multiply: tables of ops, one row each, and the sums over a model. */
#include "src/bench/step_floor.h"

#include <string.h>

#include "src/model/parameters.h"

enum { NUMBER_BYTES = 2, GRADIENT_BYTES = 4 }; /* an activation or working weight; a parameter's gradient */

/* What a tensor has a row for, and how wide a row is. */
enum rows { IMAGES, PATCHES, TOKENS };
enum width { DIM, QKV, HIDDEN, PATCH, CLASSES, WIDTHS };

struct shape {
    double rows[TOKENS + 1], widths[WIDTHS], tokens;
    size_t depth, parameters;
};

/* out = in W^T: forward, the gradient of `in` (where something learns before it), and W's, to which it is added. */
static const struct product {
    const char *name;
    enum rows rows;
    enum width in, out;
    bool in_block, first;
} products[] = {
    {"patch embedding", PATCHES, PATCH, DIM, .first = true},
    {"qkv", TOKENS, DIM, QKV, .in_block = true},
    {"proj", TOKENS, DIM, DIM, .in_block = true},
    {"fc1", TOKENS, DIM, HIDDEN, .in_block = true},
    {"fc2", TOKENS, HIDDEN, DIM, .in_block = true},
    {"head", IMAGES, DIM, CLASSES, .in_block = false},
};

/* All else that runs over activations: how many tensors of this shape a call reads and writes. */
static const struct pass {
    const char *name;
    enum floor_group group;
    enum rows rows;
    enum width width;
    size_t a_block, besides; /* calls */
    double tensors;
    double products; /* of all tokens with all tokens */
} passes[] = {
    {"residual + norm, forward", FLOOR_NORMS, TOKENS, DIM, 2, 0, 4, 0}, /* sum and branch in; sum and norm out */
    {"residual + norm, backward", FLOOR_NORMS, TOKENS, DIM, 2, 1, 4, 0},
    {"first norm, forward", FLOOR_NORMS, TOKENS, DIM, 0, 1, 2, 0},
    {"GELU, forward", FLOOR_GELU, TOKENS, HIDDEN, 1, 0, 2, 0},
    {"GELU, backward", FLOOR_GELU, TOKENS, HIDDEN, 1, 0, 3, 0},
    {"attention, forward", FLOOR_ATTENTION, TOKENS, DIM, 1, 0, 4, 2},  /* Q K V in, out */
    {"attention, backward", FLOOR_ATTENTION, TOKENS, DIM, 1, 0, 9, 5}, /* Q K V O dO in, dQ dK dV out; dO again */
    {"patches, from bytes", FLOOR_ENDS, PATCHES, PATCH, 0, 1, 1.5, 0},
    {"embedding, forward", FLOOR_ENDS, TOKENS, DIM, 0, 1, 2, 0},
    {"embedding, backward", FLOOR_ENDS, TOKENS, DIM, 0, 1, 2, 0},
    {"CLS gradient among zeros", FLOOR_ENDS, TOKENS, DIM, 0, 1, 1, 0},
    {"residual gradient, zeroed", FLOOR_ENDS, TOKENS, DIM, 0, 1, 1, 0},
};

/* What runs over all parameters. */
static const struct sweep {
    const char *name;
    double bytes; /* a parameter */
} sweeps[] = {
    {"gradients, zeroed", 4},
    {"gradient norm", 4},
    {"AdamW", 30}, /* master, m, v in and out; gradient in; working copy out */
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

static void add_product(struct step_floor *out, const struct product *product, const struct shape *shape)
{
    double rows = shape->rows[product->rows], in = shape->widths[product->in], width = shape->widths[product->out];
    double flop = 2 * rows * in * width, activations = rows * (in + width) * NUMBER_BYTES, weights = in * width;
    size_t calls = product->in_block ? shape->depth : 1;
    add(out, product->name, ", forward", FLOOR_PRODUCTS, calls, activations + weights * NUMBER_BYTES, flop);
    if (!product->first)
        add(out, product->name, ", its input's gradient", FLOOR_PRODUCTS, calls, activations + weights * NUMBER_BYTES,
            flop);
    add(out, product->name, ", its weight's gradient", FLOOR_PRODUCTS, calls,
        activations + 2 * weights * GRADIENT_BYTES, flop);
}

static void add_pass(struct step_floor *out, const struct pass *pass, const struct shape *shape)
{
    double numbers = shape->rows[pass->rows] * shape->widths[pass->width];
    add(out, pass->name, "", pass->group, pass->a_block * shape->depth + pass->besides,
        pass->tensors * numbers * NUMBER_BYTES, pass->products * 2 * numbers * shape->tokens);
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
