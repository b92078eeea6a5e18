/* How far a long command is: a bar that redraws itself on a terminal, now and then a plain line elsewhere. On stderr,
 * so that stdout holds results alone. */
#ifndef QUEST_BASE_WORK_PROGRESS_H
#define QUEST_BASE_WORK_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

struct work_progress {
    const char *what; /* "importing"; NULL: another rank shows how far they are */
    size_t total;     /* 0: not known */
    bool terminal;
    double start_s, shown_s;
};

struct work_progress work_progress_begin(const char *what, size_t total);
/* Call it as often as you like; it draws at most ten times a second (a plain line every ten seconds). */
void work_progress_update(struct work_progress *progress, size_t done);
/* Clears the bar, before something else is printed on stderr. */
void work_progress_clear(const struct work_progress *progress);
void work_progress_end(struct work_progress *progress, size_t done);

#endif
