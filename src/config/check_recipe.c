/* Relations between keys of a recipe: the loss, the schedule and the average. */
#include "src/config/schema.h"

/* Of thresholded targets with so much smoothing every class would be positive. */
static bool check_loss(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    double smoothing = config->train.label_smoothing, threshold = config->train.bce_threshold;
    double spread = config->model.classes > 0 ? smoothing / (double)config->model.classes : 0;
    if (config->train.loss != LOSS_BCE || threshold < 0 || smoothing == 0 || (threshold > 0 && spread <= threshold))
        return true;
    return config_refuse(reading, "train.label_smoothing",
                         "%g with train.loss: bce puts every class over train.bce_threshold %g; set it to 0, or "
                         "bce_threshold to -1",
                         smoothing, threshold);
}

/* Keys that a rule would not look at are refused rather than ignored. */
static bool check_schedule_keys(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    enum schedule rule = config->optim.schedule;
    bool timm = rule == SCHEDULE_TIMM_UPDATES || rule == SCHEDULE_TIMM_EPOCHS;
    if (config->optim.warmup_steps && config->optim.warmup_epochs > 0)
        return config_refuse(reading, "optim.warmup_epochs", "%s",
                             "optim.warmup_steps is given too; keep one of the two");
    if (config->optim.warmup_steps && (rule == SCHEDULE_TIMM_EPOCHS || rule == SCHEDULE_DEIT))
        return config_refuse(reading, "optim.warmup_steps", "%s",
                             "this schedule counts epochs; give optim.warmup_epochs instead");
    if (config->optim.cooldown_epochs > 0 && !timm)
        return config_refuse(reading, "optim.cooldown_epochs", "%s",
                             "only timm_updates and timm_epochs of optim.schedule have a cool-down");
    if (config->optim.warmup_prefix && !timm)
        return config_refuse(reading, "optim.warmup_prefix", "%s",
                             "only timm_updates and timm_epochs of optim.schedule know it");
    return true;
}

static bool check_schedule(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    double warmup = config->optim.warmup_epochs, cooldown = config->optim.cooldown_epochs;
    if (!check_schedule_keys(reading))
        return false;
    if (config->train.epochs && warmup + cooldown > 0 && warmup + cooldown >= (double)config->train.epochs)
        return config_refuse(reading, "optim.warmup_epochs",
                             "%g and cooldown_epochs %g are not less than train.epochs %lld", warmup, cooldown,
                             (long long)config->train.epochs);
    if (config->optim.min_lr > config_peak_lr(config))
        return config->optim.lr_base_batch
                   ? config_refuse(reading, "optim.min_lr",
                                   "%g is more than optim.lr %g x batch %lld / lr_base_batch %lld",
                                   config->optim.min_lr, config->optim.lr, (long long)config->train.batch_size,
                                   (long long)config->optim.lr_base_batch)
                   : config_refuse(reading, "optim.min_lr", "%g is more than optim.lr %g", config->optim.min_lr,
                                   config->optim.lr);
    return true;
}

bool config_check_recipe(const struct config_reading *reading)
{
    const struct config *config = reading->config;
    if (config->ema.warmup && config->ema.decay == 0)
        return config_refuse(reading, "ema.warmup", "%s", "there is no average; give ema.decay, such as 0.9999");
    return check_loss(reading) && check_schedule(reading);
}
