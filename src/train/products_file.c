/* Reads and writes products.jsonl. */
#include "src/train/products_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/files/file_output.h"

/* A run has some twenty products, of 700 bytes each. */
enum { MOST_PRODUCTS = 4096, MOST_BYTES = 4 << 20 };

bool kept_products_add(struct kept_products *products, const struct kept_product *items, size_t count,
                       struct error *error)
{
    if (count == 0)
        return true;
    struct kept_product *grown = realloc(products->items, (products->count + count) * sizeof *grown);
    if (!grown)
        return error_runtime(error, "out of memory for the choices of products");
    memcpy(grown + products->count, items, count * sizeof *items);
    products->items = grown;
    products->count += count;
    return true;
}

void kept_products_free(struct kept_products *products)
{
    free(products->items);
    *products = (struct kept_products){0};
}

/* ---- reading ---- */

static bool read_lines(struct kept_products *products, const char *text, size_t bytes, struct error *error)
{
    size_t number = 1;
    for (const char *at = text, *end = text + bytes; at < end; number++) {
        struct kept_product product = {0};
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            return error_input(error, "line %zu is cut off", number);
        if (number > MOST_PRODUCTS)
            return error_input(error, "has more than %d lines", MOST_PRODUCTS);
        if (!product_choice_read(&product.choice, product.identity, at, (size_t)(newline - at), error))
            return error_prefix(error, "line %zu", number);
        if (!kept_products_add(products, &product, 1, error))
            return false;
        at = newline + 1;
    }
    return true;
}

static bool read_text(char **text, size_t *bytes, int file, struct error *error)
{
    *text = malloc(MOST_BYTES + 1);
    if (!*text)
        return error_runtime(error, "out of memory");
    ssize_t got = 1;
    for (*bytes = 0; got > 0 && *bytes <= MOST_BYTES; *bytes += got > 0 ? (size_t)got : 0) {
        got = read(file, *text + *bytes, MOST_BYTES + 1 - *bytes);
        if (got < 0 && errno != EINTR)
            return error_input(error, "cannot be read: %s", strerror(errno));
        got = got < 0 ? 1 : got;
    }
    return *bytes <= MOST_BYTES || error_input(error, "is larger than %d MiB", MOST_BYTES >> 20);
}

bool products_file_read(struct kept_products *products, const char *path, struct error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    *products = (struct kept_products){0};
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe of that name does not hold the run up */
    if (file < 0 && errno == ENOENT)
        return true;
    bool ok =
        file >= 0 ? read_text(&text, &bytes, file, error) : error_input(error, "cannot be opened: %s", strerror(errno));
    ok = ok && read_lines(products, text, bytes, error);
    if (file >= 0)
        close(file);
    free(text);
    if (ok)
        return true;
    kept_products_free(products);
    return error_prefix(error, "%s", path);
}

/* ---- writing ---- */

static bool write_lines(const struct kept_products *products, int file)
{
    for (size_t i = 0; i < products->count; i++) {
        char *line = product_choice_format(&products->items[i].choice, products->items[i].identity);
        errno = line ? 0 : ENOMEM;
        bool ok = line && file_write_all(file, line, strlen(line)) && file_write_all(file, "\n", 1);
        int problem = errno;
        free(line);
        errno = problem;
        if (!ok)
            return false;
    }
    return true;
}

bool products_file_write(const struct kept_products *products, const char *path, const char *directory,
                         struct error *error)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = file >= 0 && write_lines(products, file);
    if (ok) {
        ok = file_commit(file, temporary, path, directory, error);
    } else {
        error_runtime(error, "%s: cannot be written: %s", temporary, strerror(errno));
        if (file >= 0) {
            close(file);
            unlink(temporary);
        }
    }
    free(temporary);
    return ok;
}
