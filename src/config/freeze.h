/* model.freeze: which parameters a run leaves as they are. */
#ifndef QUEST_CONFIG_FREEZE_H
#define QUEST_CONFIG_FREEZE_H

#include "src/config/config.h"

struct config_freeze {
    bool embedding;         /* patch_embed, cls_token, pos_embed */
    size_t blocks;          /* the first so many */
    bool all_but_head;      /* every block and the final norm too */
    const char *unreadable; /* what is wrong with the text, NULL where nothing is */
};
struct config_freeze config_freeze(const struct config *config);

#endif
