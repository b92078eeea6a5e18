/* Evaluates the parameters, then their average. */
#include "src/train/evaluate.h"

#include <stdlib.h>

#include "src/base/clock.h"
#include "src/measure/evaluation.h"
#include "src/train/average.h"

/* What the model holds now, logged as `split`; *done: it was not stopped. */
static bool evaluate_now(struct trainer *trainer, const char *split, const char *of, struct evaluation *result,
                         bool *done, struct error *error)
{
    bool stopped;
    double begin = clock_s(), epoch = trainer_epoch(trainer, trainer->step);
    unsigned long long step = trainer->step;
    *done = false;
    if (!evaluate(result, trainer->model, trainer->comm, &trainer->val_input_options, NULL, &stopped, error))
        return false;
    if (stopped) {
        progress_warn(&trainer->progress, "the evaluation of step %llu was stopped; quest-eval does it on a checkpoint",
                      step);
        return true;
    }
    *done = true;
    progress_say(&trainer->progress, "evaluation%s at step %llu (epoch %.2f): top-1 %.2f %%, top-5 %.2f %%, loss %.4f",
                 of, step, epoch, 100 * result->top1, 100 * result->top5, result->loss);
    struct metrics_record metrics = {.step = trainer->step,
                                     .images = (double)result->images,
                                     .skipped_images = (double)result->damaged,
                                     .epoch = epoch,
                                     .top1 = result->top1,
                                     .top5 = result->top5,
                                     .loss = result->loss,
                                     .seconds = clock_s() - begin};
    snprintf(metrics.split, sizeof metrics.split, "%s", split);
    trainer_log_metrics(trainer, &metrics);
    return true;
}

static bool evaluate_average(struct trainer *trainer, struct error *error)
{
    struct evaluation result;
    struct error ignored;
    bool done;
    float *parameters;
    if (!trainer_take_average(trainer, &parameters, error))
        return false;
    bool ok = evaluate_now(trainer, SPLIT_OF_AVERAGE, " of the average", &result, &done, error);
    if (!ok)
        trainer_give_back(trainer, parameters, &ignored);
    return ok && comm_agree(trainer->comm, trainer_give_back(trainer, parameters, error), error);
}

bool trainer_evaluate(struct trainer *trainer, bool *is_best, struct error *error)
{
    struct evaluation result;
    bool done;
    *is_best = false;
    if (!evaluate_now(trainer, "val", "", &result, &done, error))
        return false;
    if (!done)
        return true;
    if (result.damaged > 0)
        progress_warn(
            &trainer->progress,
            "damaged or too small images left out of the evaluation: %llu (quest-data verify %s names damaged ones)",
            (unsigned long long)result.damaged, trainer->val.path);
    *is_best = result.top1 > trainer->best_top1;
    if (*is_best)
        trainer->best_top1 = result.top1;
    return !trainer->average.values || evaluate_average(trainer, error);
}
