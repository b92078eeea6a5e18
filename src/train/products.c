/* The rehearsal on which products are timed, and the exchange of what was chosen. */
#include "src/train/products.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/random.h"
#include "src/files/file_output.h"

/* ---- rehearsal ---- */

/* Random pictures and labels: the shapes are all that matters of them. */
static bool make_input(struct trainer *trainer, void *pixels, void *labels, struct error *error)
{
    const struct model *model = trainer->model;
    size_t batch = trainer->batch, bytes = batch * model->patches * model->patch_dim;
    uint8_t *host_pixels = malloc(bytes + 16);
    int32_t *host_labels = malloc(batch * sizeof *host_labels);
    bool ok = (host_pixels && host_labels) || error_runtime(error, "out of memory for the rehearsal of a step");
    for (size_t i = 0; ok && i < bytes; i += 16)
        random_bits((uint32_t *)(void *)(host_pixels + i), 0, random_stream("rehearsal"), i);
    for (size_t i = 0; ok && i < batch; i++)
        host_labels[i] = (int32_t)(i % model->classes);
    ok = ok && trainer->kernels->upload(model->context, pixels, host_pixels, bytes, error) &&
         trainer->kernels->upload(model->context, labels, host_labels, batch * sizeof *host_labels, error) &&
         trainer->kernels->synchronise(model->context, error);
    free(host_pixels);
    free(host_labels);
    return ok;
}

/* A step without its end, as it is when norms are logged and when not, its first micro-step and, where there are more,
 * one that adds to its gradients. What it leaves in gradients and statistics is cleared by the step that uses them. */
static bool pass(struct trainer *trainer, const uint8_t *pixels, const int32_t *labels, struct error *error)
{
    struct model *model = trainer->model;
    const struct model_targets targets = {.labels = labels};
    for (int with_norms = 0; with_norms < 2; with_norms++) {
        model->first_backward = with_norms == 0 || trainer->accumulate == 1;
        if (!model_forward(model, pixels, trainer->batch, false, with_norms != 0, error) ||
            !model_loss(model, &targets, trainer->batch, 1.0f / (float)trainer->batch, error) ||
            !model_backward(model, trainer->batch, false, NULL, NULL, error))
            return false;
    }
    return trainer->kernels->synchronise(model->context, error);
}

/* A GPU without room for the pictures runs on untimed. */
static bool rehearse(struct trainer *trainer, struct error *error)
{
    const struct kernels *kernels = trainer->kernels;
    const struct model *model = trainer->model;
    struct error no_room;
    void *pixels = NULL, *labels = NULL;
    size_t bytes = trainer->batch * model->patches * model->patch_dim;
    bool room = kernels->allocate(model->context, &pixels, bytes, "a rehearsal", &no_room) &&
                kernels->allocate(model->context, &labels, trainer->batch * sizeof(int32_t), "a rehearsal", &no_room);
    bool ok = true;
    if (room) {
        kernels->products->set_mode(model->context, PRODUCTS_TUNED);
        ok = make_input(trainer, pixels, labels, error) && pass(trainer, pixels, labels, error);
        kernels->products->set_mode(model->context, PRODUCTS_FIRST);
    } else {
        progress_warn(&trainer->progress, "products are not timed, the library's first offers are taken: %s",
                      no_room.message);
    }
    if (pixels)
        kernels->release(model->context, pixels);
    if (labels)
        kernels->release(model->context, labels);
    return ok;
}

/* ---- choices ---- */

/* Adds those of this rank. */
static bool collect(struct trainer *trainer, struct kept_products *products, struct error *error)
{
    const struct kernels_products *chosen = trainer->kernels->products;
    struct context *context = trainer->model->context;
    struct kept_product product = {0};
    if (!chosen)
        return true;
    chosen->identity(context, product.identity, sizeof product.identity);
    for (size_t i = 0; i < chosen->count(context); i++) {
        chosen->get(context, i, &product.choice);
        if (!kept_products_add(products, &product, 1, error))
            return false;
    }
    return true;
}

/* Takes what is for this rank's GPU. */
static bool take(struct trainer *trainer, const struct kept_products *products, const char *identity, size_t *taken,
                 struct error *error)
{
    *taken = 0;
    for (size_t i = 0; trainer->kernels->products && i < products->count; i++) {
        if (strcmp(products->items[i].identity, identity) != 0)
            continue;
        if (!trainer->kernels->products->take(trainer->model->context, &products->items[i].choice, error))
            return false;
        ++*taken;
    }
    return true;
}

/* What is for none of these GPUs stays in the file. */
static bool keep_others(struct kept_products *others, const struct kept_products *all, const char *identity,
                        struct error *error)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].identity, identity) != 0 && !kept_products_add(others, &all->items[i], 1, error))
            return false;
    return true;
}

static bool read_file(struct trainer *trainer, struct kept_products *products, const char *identity,
                      struct error *error)
{
    char *path = file_path(trainer->options.run_directory, "products.jsonl");
    struct error damage;
    bool known = false;
    if (!path)
        return error_runtime(error, "out of memory");
    if (!products_file_read(products, path, &damage))
        progress_warn(&trainer->progress, "%s; products are chosen anew", damage.message);
    for (size_t i = 0; i < products->count; i++)
        known = known || strcmp(products->items[i].identity, identity) == 0;
    if (products->count > 0 && !known)
        progress_warn(&trainer->progress, "%s holds choices for %s, and this is %s; products are chosen anew", path,
                      products->items[0].identity, identity);
    free(path);
    return true;
}

static bool choose(struct trainer *trainer, const struct kept_products *kept, const char *identity, struct error *error)
{
    const struct kernels_products *products = trainer->kernels->products;
    struct context *context = trainer->model->context;
    struct error refusal;
    size_t taken;
    double begin = clock_s();
    if (!products)
        return true;
    if (!take(trainer, kept, identity, &taken, &refusal)) {
        progress_warn(&trainer->progress, "products.jsonl: %s; products are chosen anew", refusal.message);
        products->forget(context);
        taken = 0;
    }
    if (!rehearse(trainer, error))
        return false;
    progress_say(&trainer->progress, "products: %zu, of which %zu as in products.jsonl; rehearsed in %.1f s",
                 products->count(context), taken, clock_s() - begin);
    return true;
}

/* ---- between ranks ---- */

static bool broadcast(struct trainer *trainer, struct kept_products *products, struct error *error)
{
    size_t count = products->count;
    if (!comm_broadcast(trainer->comm, &count, sizeof count, 0, error))
        return false;
    if (!trainer_is_first(trainer)) {
        products->count = count;
        products->items = malloc(count ? count * sizeof *products->items : 1);
    }
    return comm_agree(trainer->comm, products->items || count == 0 || error_runtime(error, "out of memory"), error) &&
           (count == 0 || comm_broadcast(trainer->comm, products->items, count * sizeof *products->items, 0, error));
}

/* *leads: no rank before this one has its identity. */
static bool find_leader(struct trainer *trainer, const char *identity, bool *leads, struct error *error)
{
    size_t size = (size_t)comm_world_size(trainer->comm), rank = (size_t)comm_rank(trainer->comm);
    char(*all)[PRODUCTS_IDENTITY_BYTES] = calloc(size, sizeof *all);
    size_t *counts = calloc(size, sizeof *counts);
    for (size_t i = 0; counts && i < size; i++)
        counts[i] = sizeof *all;
    bool ok = comm_agree(trainer->comm, (all && counts) || error_runtime(error, "out of memory"), error) &&
              comm_gather(trainer->comm, all, counts, identity, sizeof *all, error) &&
              comm_broadcast(trainer->comm, all, size * sizeof *all, 0, error);
    *leads = true;
    for (size_t i = 0; ok && i < rank; i++)
        *leads = *leads && strcmp(all[i], identity) != 0;
    free(all);
    free(counts);
    return ok;
}

/* Rank 0 gets everybody's, and hands them out. */
static bool exchange(struct trainer *trainer, const struct kept_products *mine, struct kept_products *all,
                     struct error *error)
{
    size_t size = (size_t)comm_world_size(trainer->comm), bytes = mine->count * sizeof *mine->items, total = 0;
    size_t *counts = calloc(size, sizeof *counts), *sizes = calloc(size, sizeof *sizes);
    for (size_t i = 0; counts && i < size; i++)
        counts[i] = sizeof *sizes;
    bool ok = comm_agree(trainer->comm, (counts && sizes) || error_runtime(error, "out of memory"), error) &&
              comm_gather(trainer->comm, sizes, counts, &bytes, sizeof bytes, error);
    for (size_t i = 0; ok && i < size; i++)
        total += sizes[i];
    if (ok && trainer_is_first(trainer)) {
        all->count = total / sizeof *all->items;
        all->items = malloc(total + 1);
    }
    ok = ok &&
         comm_agree(trainer->comm, !trainer_is_first(trainer) || all->items || error_runtime(error, "out of memory"),
                    error) &&
         comm_gather(trainer->comm, all->items, sizes, bytes ? (const void *)mine->items : "", bytes, error) &&
         broadcast(trainer, all, error);
    free(counts);
    free(sizes);
    return ok;
}

static bool tune(struct trainer *trainer, struct kept_products *kept, const char *identity, struct error *error)
{
    struct kept_products mine = {0}, all = {0};
    size_t taken;
    bool leads = false;
    bool ok = broadcast(trainer, kept, error) && find_leader(trainer, identity, &leads, error) &&
              comm_agree(trainer->comm,
                         !leads || (choose(trainer, kept, identity, error) && collect(trainer, &mine, error)), error) &&
              exchange(trainer, &mine, &all, error) &&
              comm_agree(trainer->comm, leads || take(trainer, &all, identity, &taken, error), error) &&
              comm_agree(trainer->comm, keep_others(&trainer->products.others, &all, identity, error), error);
    kept_products_free(&mine);
    kept_products_free(&all);
    return ok;
}

/* What the file holds for GPUs that no rank has. */
static bool keep_absent(struct trainer *trainer, const struct kept_products *kept, const char *identity,
                        struct error *error)
{
    struct kept_products *others = &trainer->products.others, absent = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < kept->count; i++) {
        bool present = strcmp(kept->items[i].identity, identity) == 0;
        for (size_t j = 0; j < others->count; j++)
            present = present || strcmp(kept->items[i].identity, others->items[j].identity) == 0;
        ok = present || kept_products_add(&absent, &kept->items[i], 1, error);
    }
    ok = ok && kept_products_add(others, absent.items, absent.count, error);
    kept_products_free(&absent);
    return ok;
}

bool trainer_products_open(struct trainer *trainer, struct error *error)
{
    const struct kernels_products *products = trainer->kernels->products;
    struct context *context = trainer->model->context;
    struct kept_products kept = {0};
    char identity[PRODUCTS_IDENTITY_BYTES] = "";
    enum products_mode mode = PRODUCTS_FIRST;
    if (products) {
        mode = products->resolve(context, trainer->config->train.products);
        products->identity(context, identity, sizeof identity);
        products->set_mode(context, mode == PRODUCTS_TUNED ? PRODUCTS_FIRST : mode);
    }
    /* With --device auto a host may have no GPU, and a rank there nothing to choose; it takes part all the same. */
    double any[2] = {products != NULL, mode == PRODUCTS_TUNED};
    if (!comm_reduce(trainer->comm, any, 2, COMM_MAX, error))
        return false;
    if (any[0] == 0)
        return true;
    bool reads = trainer_is_first(trainer) && products;
    bool ok = comm_agree(trainer->comm, !reads || read_file(trainer, &kept, identity, error), error) &&
              (any[1] == 0 || tune(trainer, &kept, identity, error)) &&
              comm_agree(trainer->comm, keep_absent(trainer, &kept, identity, error), error);
    kept_products_free(&kept);
    trainer->products.refused = products ? products->refused(context) : 0;
    if (ok)
        trainer_products_keep(trainer);
    return ok;
}

/* ---- the file ---- */

static bool write_file(struct trainer *trainer, struct error *error)
{
    struct kept_products all = {0};
    char *path = file_path(trainer->options.run_directory, "products.jsonl");
    bool ok = (path || error_runtime(error, "out of memory")) && collect(trainer, &all, error) &&
              kept_products_add(&all, trainer->products.others.items, trainer->products.others.count, error) &&
              products_file_write(&all, path, trainer->options.run_directory, error);
    free(path);
    kept_products_free(&all);
    return ok;
}

void trainer_products_keep(struct trainer *trainer)
{
    const struct kernels_products *products = trainer->kernels->products;
    struct error error;
    if (!products || !trainer_is_first(trainer))
        return;
    size_t count = products->count(trainer->model->context), refused = products->refused(trainer->model->context);
    if (count == trainer->products.count && refused == trainer->products.refused)
        return;
    if (refused != trainer->products.refused)
        progress_warn(&trainer->progress,
                      "step %llu: the library refused an algorithm that it had offered for a product; another one goes "
                      "on (\"refused\" in products.jsonl)",
                      (unsigned long long)trainer->step);
    trainer->products.count = count;
    trainer->products.refused = refused;
    trainer_log_result(trainer, write_file(trainer, &error), &error);
}

void trainer_products_close(struct trainer *trainer)
{
    kept_products_free(&trainer->products.others);
}
