/* What quest-norms watch draws with ncurses (which the caller has started). */
#ifndef QUEST_NORMS_SCREEN_H
#define QUEST_NORMS_SCREEN_H

#include "src/norms/reading.h"

/* The statistics that can be chosen: those of heads, then qkv_grad_norm. */
enum { NORMS_SCREEN_STATISTICS = NEWEST_STATISTICS + 1 };

struct norms_view {
    long layer, head; /* chosen; -1: of all the one that matters most */
    size_t statistic;
};

void norms_screen_draw(const struct norms_reading *reading, const struct norms_view *view);
/* How many heads the chosen layer has, or the largest number of any. */
size_t norms_screen_heads(const struct norms_series *series, long layer);

#endif
