/* The table of a norm record's lists: name, field, how they merge. */
#include "src/record/norm_lists.h"

#include <stddef.h>
#include <string.h>

#define LIST(field) #field, offsetof(struct norm_record, field)

const struct norm_list norm_lists[NORM_LISTS] = {
    {LIST(q_norm_mean), NORMS_MEAN},   {LIST(q_norm_std), NORMS_MEAN},     {LIST(q_norm_min), NORMS_MINIMUM},
    {LIST(q_norm_max), NORMS_MAXIMUM}, {LIST(k_norm_mean), NORMS_MEAN},    {LIST(k_norm_std), NORMS_MEAN},
    {LIST(k_norm_min), NORMS_MINIMUM}, {LIST(k_norm_max), NORMS_MAXIMUM},  {LIST(logit_max), NORMS_MAXIMUM},
    {LIST(entropy_mean), NORMS_MEAN},  {LIST(entropy_min), NORMS_MINIMUM},
};

const double *norm_record_list(const struct norm_record *record, size_t list)
{
    const double *values;
    memcpy(&values, (const char *)record + norm_lists[list].offset, sizeof values);
    return values;
}

void norm_record_set_list(struct norm_record *record, size_t list, const double *values)
{
    memcpy((char *)record + norm_lists[list].offset, &values, sizeof values);
}
