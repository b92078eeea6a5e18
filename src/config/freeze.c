/* Reads model.freeze: "", all_but_head or a number of blocks. */
#include "src/config/freeze.h"

#include <stdlib.h>
#include <string.h>

struct config_freeze config_freeze(const struct config *config)
{
    const char *text = config->model.freeze;
    size_t depth = (size_t)config->model.depth;
    if (!text[0])
        return (struct config_freeze){0};
    if (strcmp(text, "all_but_head") == 0)
        return (struct config_freeze){.embedding = true, .blocks = depth, .all_but_head = true};
    if (strcmp(text, "all") == 0)
        return (struct config_freeze){.unreadable = "leaves nothing to train"};
    if (strspn(text, "0123456789") != strlen(text) || (text[0] == '0' && text[1]))
        return (struct config_freeze){.unreadable = "is not a number of blocks"};
    unsigned long long blocks = strtoull(text, NULL, 10);
    if (blocks > depth)
        return (struct config_freeze){.unreadable = "is more than model.depth"};
    return (struct config_freeze){.embedding = true, .blocks = (size_t)blocks};
}
