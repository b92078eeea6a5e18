/* Which numbers a logged step has and which an evaluation, and what they are called. */
#include "src/record/metric.h"

#include <string.h>

#define FIELD(field) #field, offsetof(struct metrics_record, field)

const struct metric step_metrics[] = {
    {FIELD(epoch), "train/epoch", false},
    {FIELD(loss), "train/loss", false},
    {FIELD(top1), "train/top1", false},
    {FIELD(lr), "train/lr", false},
    {FIELD(grad_norm), "train/grad_norm", false},
    {FIELD(images_per_s), "speed/images_per_s", false},
    {FIELD(step_time_s), "speed/step_time_s", false},
    {FIELD(data_wait_s), "speed/data_wait_s", false},
    {FIELD(comm_wait_s), "speed/comm_wait_s", false},
    {FIELD(mfu), "speed/mfu", false},
    {FIELD(skipped_images), "speed/skipped_images", true},
    {FIELD(skipped_updates), NULL, true},
    {NULL, 0, NULL, false},
};

const struct metric evaluation_metrics[] = {
    {FIELD(epoch), NULL, false},
    {FIELD(top1), "evaluation/top1", false},
    {FIELD(top5), "evaluation/top5", false},
    {FIELD(loss), "evaluation/loss", false},
    {FIELD(images), NULL, true},
    {FIELD(skipped_images), NULL, true},
    {FIELD(seconds), NULL, false},
    {NULL, 0, NULL, false},
};

const struct metric *metrics_of(const struct metrics_record *record)
{
    return record->split[0] ? evaluation_metrics : step_metrics;
}

bool metrics_are_of_average(const struct metrics_record *record)
{
    return strcmp(record->split, SPLIT_OF_AVERAGE) == 0;
}

double metric_value(const struct metrics_record *record, const struct metric *metric)
{
    double value;
    memcpy(&value, (const char *)record + metric->offset, sizeof value);
    return value;
}

void metric_set(struct metrics_record *record, const struct metric *metric, double value)
{
    memcpy((char *)record + metric->offset, &value, sizeof value);
}
