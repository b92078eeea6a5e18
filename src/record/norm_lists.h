/* The lists of a norm record, one number a head, in the order in which norms.jsonl has them. */
#ifndef QUEST_RECORD_NORM_LISTS_H
#define QUEST_RECORD_NORM_LISTS_H

#include "src/record/record.h"

/* How several numbers of a statistic become one. */
enum norms_merge { NORMS_MEAN, NORMS_MAXIMUM, NORMS_MINIMUM };

enum { NORM_LISTS = 11 };
struct norm_list {
    const char *name;
    size_t offset; /* in struct norm_record */
    enum norms_merge merge;
};
extern const struct norm_list norm_lists[NORM_LISTS];

/* [record->heads] numbers, or NULL. */
const double *norm_record_list(const struct norm_record *record, size_t list);
void norm_record_set_list(struct norm_record *record, size_t list, const double *values);

#endif
