/* Matrix products for which a library offers several algorithms: what was chosen for each, to be looked at, kept in a
 * file and taken up again, so that a run that goes on has the same bits. A backend that has such choices fills in a
 * struct kernels_products (`products` in its table); the CPU's oneDNN chooses by itself and has none. */
#ifndef QUEST_KERNELS_PRODUCTS_H
#define QUEST_KERNELS_PRODUCTS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum products_mode {
    PRODUCTS_AUTO,  /* tuned where a timing means something, else first (a simulator's clock is the host's) */
    PRODUCTS_TUNED, /* at a product's first use every offer is timed and the fastest taken */
    PRODUCTS_FIRST, /* what the library offers first */
    PRODUCTS_PLAIN, /* the library's general call, and kernels of our own for what its epilogues would do */
};

/* What is done with a product on the way out. */
enum product_epilogue {
    PRODUCT_ALONE,
    PRODUCT_BIAS,        /* d += bias, one number a row of d */
    PRODUCT_COLUMN_SUMS, /* beside it the sums of b's rows over k: the gradient of a bias */
};

enum product_way {
    PRODUCT_BY_LIBRARY, /* one of the algorithms offered, with its epilogue */
    PRODUCT_IN_PARTS,   /* the product alone, then a kernel of ours for the epilogue */
    PRODUCT_BY_GENERAL, /* the library's general call, which chooses by itself */
};

/* Everything that a choice depends on, in the library's column-major words: d [m, n] = a [m, k] b [k, n], each without
 * gaps. Compared as bytes, so it has no padding. */
struct product {
    uint64_t m, n, k;
    uint32_t transpose_a, transpose_b; /* 1: lies in memory transposed */
    uint32_t dtype_in, dtype_out;      /* enum dtype */
    uint32_t accumulate;               /* d += instead of d = */
    uint32_t epilogue;                 /* enum product_epilogue */
    /* Of the addresses, a power of two up to 16: no algorithm asks for more, and whatever the model allocates has it,
     * so that bits do not depend on where a tensor lies. bias: 16 where there is none. */
    uint32_t align_a, align_b, align_d, align_bias;
};

#define PRODUCT_ALGORITHM_BYTES 64

struct product_choice {
    struct product product;
    enum product_way way;
    bool tuned;                                       /* timed against the other offers, if there was room for it */
    unsigned char algorithm[PRODUCT_ALGORITHM_BYTES]; /* BY_LIBRARY: the library's own description; else zeros */
    /* For the reader. Of the algorithm, -1 where the library does not say: */
    int32_t id, tile, stages, split_k;
    double waves;             /* of thread blocks over the GPU */
    uint64_t workspace_bytes; /* that it uses */
    int32_t offered, refused; /* algorithms offered, and refused when they were called */
    double time_s, first_s;   /* a call's time, and that of the first offer; 0: not timed */
};

struct kernels_products {
    /* One line that names what choices are good for: GPU, driver, versions. */
    void (*identity)(struct context *ctx, char *text, size_t text_bytes);
    /* TUNED or FIRST (what AUTO means on this device) or PLAIN, as given. */
    enum products_mode (*resolve)(struct context *ctx, enum products_mode mode);
    /* From here on; choices that were made stay, but that PLAIN and the others do not know each other's. A context
     * begins with FIRST. TUNED waits for the device at a product's first use and takes scratch memory beside the
     * workspace for so long; the tensors come out as without it, but for the algorithm that computes them. While a
     * stream is captured the first offer is taken. */
    void (*set_mode)(struct context *ctx, enum products_mode mode);
    /* The choices of this context in the order in which they were made. */
    size_t (*count)(struct context *ctx);
    void (*get)(struct context *ctx, size_t index, struct product_choice *choice);
    /* Offers that were refused when they were called, of all products since the context was opened. */
    size_t (*refused)(struct context *ctx);
    /* Makes a choice of another context, or of a file, this one's. ERROR_RUNTIME where it is no possible one here (the
     * library is asked, so that whatever a file says is safe to take); the product is then as it was. */
    bool (*take)(struct context *ctx, const struct product_choice *choice, struct error *error);
    /* As if no product had been used yet. */
    void (*forget)(struct context *ctx);
};

/* ---- as text: one JSON object a line (docs/products.md) ---- */

#define PRODUCTS_IDENTITY_BYTES 256

/* A line without its newline, to be freed; NULL: out of memory. */
char *product_choice_format(const struct product_choice *choice, const char *identity);
/* What product_choice_format wrote. ERROR_INPUT says what is wrong with the text; it is checked field by field. */
bool product_choice_read(struct product_choice *choice, char identity[PRODUCTS_IDENTITY_BYTES], const char *line,
                         size_t line_bytes, struct error *error);
const char *product_epilogue_name(enum product_epilogue epilogue);
const char *product_way_name(enum product_way way);

#ifdef __cplusplus
}
#endif
#endif
