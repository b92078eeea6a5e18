/* quest-norms: looks at the statistics that a run logs (docs/quest-norms.md). */
#include <stdlib.h>

#include "src/base/command_line.h"
#include "src/norms/norms.h"

#define INTO(member) .field = offsetof(struct norms_arguments, member)

static bool take_run(void *into, const char *directory, struct error *error)
{
    struct norms_arguments *arguments = into;
    if (arguments->run_count == NORMS_RUNS_MAX)
        return error_input(error, "'%s' is one run too many: at most %d are compared", directory, NORMS_RUNS_MAX);
    arguments->runs[arguments->run_count++] = directory;
    return true;
}

static bool take_interval(void *field, const struct command_option *option, const char *text, struct error *error)
{
    char *end;
    double seconds = strtod(text, &end);
    if (*end != '\0' || !(seconds >= 0.05 && seconds <= 3600))
        return error_input(error, "--%s: '%s' is not a number of seconds from 0.05 to 3600", option->name, text);
    *(double *)field = seconds;
    return true;
}

static const struct command_option diagnose_options[] = {
    {"json", NULL, "One JSON object instead of text", command_line_flag, .letter = 'j', INTO(json)}, {0}};
static const struct command_option watch_options[] = {
    {"plain", NULL, "Lines instead of a screen", command_line_flag, INTO(plain)},
    {"interval", "SECONDS", "How often to look for what is new [1]", take_interval, INTO(interval_s)},
    {0}};
static const struct command_option report_options[] = {
    {"out", "F.html", "The page to write", command_line_text, .letter = 'o', INTO(out)}, {0}};
static const struct command_option plot_options[] = {
    {"stat", "NAME",
     "loss, grad_norm, lr, images_per_s, q_norm_mean, q_norm_max, k_norm_mean, k_norm_max, logit_max, entropy_mean, "
     "entropy_min, qkv_grad_norm, or any other number that the logs hold [logit_max]",
     command_line_text, .letter = 's', INTO(statistic)},
    {"layer", "I", "Only this layer [all]", command_line_text, .letter = 'l', INTO(layer)},
    {"head", "H", "Only this head [all]", command_line_text, .letter = 'd', INTO(head)},
    {"log", NULL, "A logarithmic axis", command_line_flag, INTO(logarithmic)},
    {"out", "F", "The picture to write: F.png, F.svg or F.pdf", command_line_text, .letter = 'o', INTO(out)},
    {0}};
static const struct command_option export_options[] = {
    {"csv", "F", "Every logged step, and every layer and head", command_line_text, INTO(csv)},
    {"prometheus", "F", "The newest numbers, for the node exporter's textfile collector", command_line_text,
     INTO(prometheus)},
    {"tensorboard", "DIR", "Every logged step, as TensorBoard's event file in DIR", command_line_text,
     INTO(tensorboard)},
    {0}};

static const struct command commands[] = {
    {"diagnose",
     {diagnose_options, "RUN",
      "Run the diagnosis over a finished or running log. Exit status 0: healthy, 3: warnings, 4: critical.", take_run,
      NULL},
     norms_diagnose,
     1},
    {"watch", {watch_options, "RUN", "Follow a running job in the terminal.", take_run, NULL}, norms_watch, 1},
    {"report",
     {report_options, "RUN...",
      "Write one HTML page, that opens offline, with the charts, the events and the differences of the runs.", take_run,
      NULL},
     norms_report,
     NORMS_RUNS_MAX},
    {"plot",
     {plot_options, "RUN...", "Draw one statistic over the steps with gnuplot.", take_run, NULL},
     norms_plot,
     NORMS_RUNS_MAX},
    {"export", {export_options, "RUN", "Write the log as other programs read it.", take_run, NULL}, norms_export, 1},
};

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    struct norms_arguments arguments = {.interval_s = 1};
    if (!command_line_parse(&command->line, argc, argv, &arguments, &error))
        return command_line_fail(&error);
    if (arguments.run_count == 0 || arguments.run_count > command->most_operands) {
        error_input(&error, "%s: %s; %s --help explains it", argv[0],
                    arguments.run_count == 0 ? "RUN is missing" : "one RUN at a time", argv[0]);
        return command_line_fail(&error);
    }
    return command->run(&arguments);
}

int main(int argc, char **argv)
{
    static const struct command_program program = {.name = "quest-norms",
                                                   .commands = commands,
                                                   .count = sizeof commands / sizeof *commands,
                                                   .name_width = 9,
                                                   .operands_width = 10,
                                                   .run = run_command};
    return command_line_main(&program, argc, argv);
}
