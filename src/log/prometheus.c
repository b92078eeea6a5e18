/* The text format: families of samples with their help. */
#include "src/log/prometheus.h"

#include <math.h>

#include "src/files/file_output.h"

/* The text format escapes these three in label values. */
static void put_label(FILE *out, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            fputs("\\n", out);
        else
            fprintf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void put_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_value(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, " %.15g\n", value);
    else
        fputs(" NaN\n", out);
}

static void put_single(FILE *out, const char *run, const char *name, const char *help, double value)
{
    put_family(out, name, "gauge", help);
    fprintf(out, "%s{run=\"", name);
    put_label(out, run);
    fputs("\"}", out);
    put_value(out, value);
}

static void put_metrics(FILE *out, const char *run, const struct metrics_record *newest)
{
    put_single(out, run, "quest_train_step", "The newest logged step.", (double)newest->step);
    put_single(out, run, "quest_train_epoch", "Epochs done at that step.", newest->epoch);
    put_single(out, run, "quest_train_loss", "Training loss at that step.", newest->loss);
    put_single(out, run, "quest_train_top1", "Top-1 accuracy of that step's batch.", newest->top1);
    put_single(out, run, "quest_train_gradient_norm", "Norm of the whole gradient.", newest->grad_norm);
    put_single(out, run, "quest_train_learning_rate", "Learning rate.", newest->lr);
    put_single(out, run, "quest_train_images_per_second", "Throughput.", newest->images_per_s);
    put_single(out, run, "quest_train_step_time_seconds", "Time of a step.", newest->step_time_s);
    put_single(out, run, "quest_train_data_wait_seconds", "Of a step, waiting for the loader.", newest->data_wait_s);
    put_single(out, run, "quest_train_comm_wait_seconds", "Of a step, waiting for gradients.", newest->comm_wait_s);
    put_single(out, run, "quest_train_mfu", "Model FLOP/s over the devices' peak, 0 to 1; NaN where unknown.",
               newest->mfu);
    put_single(out, run, "quest_train_time_seconds", "When that step was logged, since 1970.", newest->time);
}

static void put_evaluation(FILE *out, const char *run, const struct metrics_record *newest)
{
    put_single(out, run, "quest_evaluation_step", "The step of the newest evaluation.", (double)newest->step);
    put_single(out, run, "quest_evaluation_top1", "Its top-1 accuracy.", newest->top1);
    put_single(out, run, "quest_evaluation_top5", "Its top-5 accuracy.", newest->top5);
    put_single(out, run, "quest_evaluation_loss", "Its loss.", newest->loss);
}

/* statistic: NEWEST_STATISTICS stands for qkv_grad_norm, which has no head. */
static void put_layers(FILE *out, const char *run, const struct log_newest *newest, size_t statistic)
{
    char name[64];
    bool of_heads = statistic < NEWEST_STATISTICS;
    snprintf(name, sizeof name, "quest_attention_%s", of_heads ? newest_statistic_names[statistic] : "qkv_grad_norm");
    put_family(out, name, "gauge",
               of_heads ? "One head's statistic at the newest logged step (docs/logs.md)."
                        : "One layer's statistic at the newest logged step (docs/logs.md).");
    for (size_t i = 0; i < newest->layer_count; i++) {
        const struct newest_layer *layer = &newest->layers[i];
        size_t heads = layer->heads == 0 ? 0 : of_heads ? layer->heads : 1;
        for (size_t head = 0; head < heads; head++) {
            fprintf(out, "%s{run=\"", name);
            put_label(out, run);
            fprintf(out, "\",layer=\"%zu\"", i);
            if (of_heads)
                fprintf(out, ",head=\"%zu\"", head);
            putc('}', out);
            put_value(out, (double)layer->values[statistic * layer->heads + head]);
        }
    }
}

static void put_events(FILE *out, const char *run, const uint64_t events[PROMETHEUS_SEVERITIES])
{
    put_family(out, "quest_diagnosis_events_total", "counter", "Events of the diagnosis so far (docs/diagnosis.md).");
    for (size_t i = 0; i < PROMETHEUS_SEVERITIES; i++) {
        fputs("quest_diagnosis_events_total{run=\"", out);
        put_label(out, run);
        fprintf(out, "\",severity=\"%s\"} %llu\n", severity_name((enum severity)(SEVERITY_INFO + (int)i)),
                (unsigned long long)events[i]);
    }
}

bool prometheus_write(const char *path, const char *run, const struct log_newest *newest,
                      const uint64_t events[PROMETHEUS_SEVERITIES], struct error *error)
{
    struct file_output output;
    if (!file_output_open(&output, path, error))
        return false;
    if (newest->metrics.step > 0)
        put_metrics(output.file, run, &newest->metrics);
    if (newest->evaluation.step > 0)
        put_evaluation(output.file, run, &newest->evaluation);
    for (size_t i = 0; i <= NEWEST_STATISTICS && newest->layer_count > 0; i++)
        put_layers(output.file, run, newest, i);
    put_events(output.file, run, events);
    return file_output_close(&output, true, error);
}
