/* Names of members: their parts, and whether they come twice. */
#include "data_loaders/import/tar_names.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FEWEST_SLOTS = 1024 };

const char *tar_name_base(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

const char *tar_name_extension(const char *name)
{
    const char *dot = strchr(tar_name_base(name), '.');
    return dot ? dot + 1 : name + strlen(name);
}

bool tar_name_is_image(const char *extension)
{
    static const char *const images[] = {"jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "ppm", "pgm", "bmp"};
    for (size_t i = 0; i < sizeof images / sizeof *images; i++)
        if (strcasecmp(extension, images[i]) == 0)
            return true;
    return false;
}

char *tar_name_class(const char *name)
{
    const char *base = tar_name_base(name);
    size_t length = strlen(base);
    return length > 4 && strcasecmp(base + length - 4, ".tar") == 0 ? strndup(base, length - 4) : NULL;
}

/* ---- names that come twice ---- */

static uint64_t hash(const char *name, size_t length)
{
    uint64_t state = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        state = (state ^ (uint8_t)name[i]) * UINT64_C(0x100000001b3);
    return state ? state : 1;
}

/* The slot that holds the value, or the free one where it belongs. */
static uint64_t *find(const struct names_seen *seen, uint64_t value)
{
    size_t slot = (size_t)(value ^ value >> 32) & (seen->capacity - 1);
    while (seen->slots[slot] != 0 && seen->slots[slot] != value)
        slot = (slot + 1) & (seen->capacity - 1);
    return &seen->slots[slot];
}

static bool grow(struct names_seen *seen)
{
    struct names_seen larger = {.capacity = seen->capacity ? 2 * seen->capacity : FEWEST_SLOTS, .count = seen->count};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < seen->capacity; i++)
        if (seen->slots[i] != 0)
            *find(&larger, seen->slots[i]) = seen->slots[i];
    free(seen->slots);
    *seen = larger;
    return true;
}

bool names_seen_add(struct names_seen *seen, const char *name, size_t length, bool *again)
{
    if (2 * seen->count >= seen->capacity && !grow(seen))
        return false;
    uint64_t value = hash(name, length), *slot = find(seen, value);
    *again = *slot == value;
    seen->count += *again ? 0 : 1;
    *slot = value;
    return true;
}

void names_seen_clear(struct names_seen *seen)
{
    if (seen->slots)
        memset(seen->slots, 0, seen->capacity * sizeof *seen->slots);
    seen->count = 0;
}

void names_seen_free(struct names_seen *seen)
{
    free(seen->slots);
    *seen = (struct names_seen){0};
}
