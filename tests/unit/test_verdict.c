/* What a run does after an event of its diagnosis. The ranks are made up: this file answers for src/comm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/train/verdict.h"
#include "tests/unit/scratch.h"

/* ---- the ranks ---- */

struct comm {
    int rank, size;
};
static const double *other_seconds; /* [size]; what all ranks' numbers are after a sum */
static unsigned reductions, broadcasts;
static double own[2]; /* what this rank put into the last sum */

int comm_rank(const struct comm *comm)
{
    return comm->rank;
}

int comm_world_size(const struct comm *comm)
{
    return comm->size;
}

bool comm_reduce(struct comm *comm, double *values, size_t count, enum comm_operation operation, struct error *error)
{
    (void)error;
    size_t size = (size_t)comm->size, rank = (size_t)comm->rank;
    reductions++;
    assert_int_equal(count, 2 * size);
    assert_int_equal(operation, COMM_SUM);
    own[0] = values[rank];
    own[1] = values[size + rank];
    for (size_t i = 0; i < count; i++) {
        assert_true(values[i] == 0 || i % size == rank);
        values[i] = i < size && other_seconds ? other_seconds[i] : 1;
    }
    return true;
}

bool comm_broadcast(struct comm *comm, void *bytes, size_t count, int root, struct error *error)
{
    (void)comm;
    (void)bytes;
    (void)error;
    broadcasts++;
    assert_int_equal(count, sizeof(struct trainer_decision));
    assert_int_equal(root, 0);
    return true;
}

/* ---- a run ---- */

static struct comm comm;
static struct config config;
static struct run_log *log_of_run;
static struct progress progress;
static struct trainer_diagnosis verdict;

static void begin(enum diagnosis_action on_warning, enum diagnosis_action on_critical, int rank, int size)
{
    struct error error;
    comm = (struct comm){rank, size};
    other_seconds = NULL;
    reductions = broadcasts = 0;
    config.attention.kind = ATTENTION_STANDARD;
    config.diagnosis.enabled = true;
    config.diagnosis.on_warning = on_warning;
    config.diagnosis.on_critical = on_critical;
    config.diagnosis.horizon_steps = 2000;
    config.diagnosis.logit_critical = 1e4;
    config.diagnosis.entropy_critical = 0.02;
    config.diagnosis.key_outlier = 5;
    config.diagnosis.spike_z = 6;
    progress_open(&progress, true, 1000, 1);
    if (rank == 0)
        assert_true(run_log_open(&log_of_run, scratch_path("run"), true, &error));
    assert_true(trainer_diagnosis_open(&verdict, &comm, log_of_run, &progress, &config, 65, &error));
}

static void end(void)
{
    trainer_diagnosis_close(&verdict);
    run_log_close(log_of_run);
    log_of_run = NULL;
}

/* One head of layer 0: its largest key norm over the mean, and its largest logit. */
static void norms(uint64_t step, double outlier, double logit)
{
    double mean = 2, largest = 2 * outlier;
    struct norm_record record = {.step = step,
                                 .heads = 1,
                                 .k_norm_mean = &mean,
                                 .k_norm_max = &largest,
                                 .logit_max = &logit,
                                 .qkv_grad_norm = NAN};
    trainer_diagnosis_norms(&verdict, &record);
}

static void step(uint64_t number, double loss, double gradient_norm)
{
    struct error error;
    struct metrics_record metrics = {.step = number, .loss = loss, .grad_norm = gradient_norm};
    assert_true(trainer_diagnosis_step(&verdict, &metrics, 7, 5, &error));
}

/* How often a word stands in the run's events.jsonl. */
static size_t in_events(const char *word)
{
    char text[1 << 14];
    FILE *file = fopen(scratch_path("run/events.jsonl"), "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, word)); at++)
        count++;
    return count;
}

/* ---- tests ---- */

static void each_severity_has_its_action(void **state)
{
    (void)state;
    begin(DIAGNOSIS_ACTION_CHECKPOINT, DIAGNOSIS_ACTION_STOP, 0, 1);
    norms(10, 1, 1);
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_LOG);
    norms(20, 6, 1); /* a warning */
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_CHECKPOINT);
    assert_int_equal(verdict.decision.step, 20);
    norms(30, 6, 20000); /* critical: the more decided action is taken */
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_STOP);
    assert_int_equal(verdict.decision.step, 30);
    assert_int_equal(strncmp(verdict.decision.why, "step 30: layer 0, head 0: the largest attention logit is", 56), 0);
    for (uint64_t number = 1; number <= 100; number++)
        step(number, number == 100 ? 9 : 1, 1); /* another warning takes nothing back */
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_STOP);
    assert_int_equal(verdict.decision.step, 30);
    end();
    assert_int_equal(in_events("key_norm_outlier"), 1);
    assert_int_equal(in_events("logit_explosion"), 1);
    assert_int_equal(in_events("loss_spike"), 1);
}

static void an_info_asks_for_nothing(void **state)
{
    (void)state;
    begin(DIAGNOSIS_ACTION_STOP, DIAGNOSIS_ACTION_STOP, 0, 1);
    config.attention.kind = ATTENTION_QUEST;
    struct error error;
    assert_true(trainer_diagnosis_restart(&verdict, &error));
    size_t before = in_events("key_norm_outlier");
    norms(10, 6, 1);
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_LOG);
    assert_int_equal(in_events("key_norm_outlier"), before + 1);
    end();
}

/* The outlier is of this step, the logit has risen since step 10: the run goes back to before that. */
static void a_rewind_goes_to_before_the_earliest_event(void **state)
{
    (void)state;
    begin(DIAGNOSIS_ACTION_REWIND, DIAGNOSIS_ACTION_REWIND, 0, 1);
    for (uint64_t number = 10; number <= 30; number += 10)
        norms(number, 1, (double)number);
    norms(40, 6, 2000);
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_REWIND);
    assert_int_equal(verdict.decision.step, 40);
    assert_int_equal(verdict.decision.since, 10);
    assert_int_equal(strncmp(verdict.decision.why, "step 40: layer 0, head 0: one token's key norm", 46), 0);
    for (uint64_t number = 1; number <= 100; number++)
        step(number, number == 100 ? 9 : 1, 1); /* a later one moves nothing */
    assert_int_equal(verdict.decision.since, 10);
    struct error error;
    assert_true(trainer_diagnosis_restart(&verdict, &error));
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_LOG);
    norms(20, 6, 1); /* of the steps that are run again, with empty windows */
    assert_int_equal(verdict.decision.since, 20);
    end();
}

/* An action that is not the one decided on leaves the step to go back to alone. */
static void a_milder_event_does_not_move_the_step_to_go_back_to(void **state)
{
    (void)state;
    begin(DIAGNOSIS_ACTION_CHECKPOINT, DIAGNOSIS_ACTION_REWIND, 0, 1);
    for (uint64_t number = 10; number <= 30; number += 10)
        norms(number, 1, 999 + (double)number / 100);
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_LOG);
    norms(40, 25, 1200); /* the outlier is critical, the logit a warning since step 10 */
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_REWIND);
    assert_int_equal(verdict.decision.since, 40);
    end();
}

static void a_slow_rank_is_stopped_for_but_never_gone_back_for(void **state)
{
    (void)state;
    const double slow[] = {1, 1, 3};
    for (int action = DIAGNOSIS_ACTION_REWIND; action <= DIAGNOSIS_ACTION_STOP; action++) {
        begin(action, action, 0, 3);
        size_t before = in_events("rank_skew");
        other_seconds = slow;
        for (uint64_t number = 1; number <= 3; number++)
            step(number, 1, 1);
        assert_int_equal(in_events("rank_skew"), before + 1);
        assert_int_equal(verdict.decision.action,
                         action == DIAGNOSIS_ACTION_STOP ? DIAGNOSIS_ACTION_STOP : DIAGNOSIS_ACTION_LOG);
        end();
    }
}

/* Every rank gives its own numbers in its own place, rank 0 alone judges. */
static void all_ranks_give_their_numbers(void **state)
{
    (void)state;
    for (int rank = 0; rank < 3; rank++) {
        begin(DIAGNOSIS_ACTION_STOP, DIAGNOSIS_ACTION_STOP, rank, 3);
        step(1, 1, 1);
        assert_int_equal(reductions, 1);
        assert_true(own[0] == 5 && own[1] == 7);
        step(2, 1, NAN); /* the trainer's to explain, and not every rank may come here */
        assert_int_equal(reductions, 1);
        assert_int_equal(verdict.rules != NULL, rank == 0);
        norms(10, 25, 20000);
        assert_int_equal(verdict.decision.action, rank == 0 ? DIAGNOSIS_ACTION_STOP : DIAGNOSIS_ACTION_LOG);
        end();
    }
    begin(DIAGNOSIS_ACTION_STOP, DIAGNOSIS_ACTION_STOP, 0, 1);
    step(1, 1, 1);
    assert_int_equal(reductions, 0);
    end();
}

static void a_decision_travels_only_where_there_can_be_one(void **state)
{
    (void)state;
    struct error error;
    for (int warning = DIAGNOSIS_ACTION_LOG; warning <= DIAGNOSIS_ACTION_STOP; warning++)
        for (int critical = DIAGNOSIS_ACTION_LOG; critical <= DIAGNOSIS_ACTION_STOP; critical++) {
            begin(warning, critical, 0, 2);
            assert_true(trainer_diagnosis_decide(&verdict, &error));
            assert_int_equal(broadcasts, warning > DIAGNOSIS_ACTION_LOG || critical > DIAGNOSIS_ACTION_LOG);
            end();
        }
}

static void without_diagnosis_nothing_is_judged(void **state)
{
    (void)state;
    struct error error;
    begin(DIAGNOSIS_ACTION_STOP, DIAGNOSIS_ACTION_STOP, 0, 2);
    trainer_diagnosis_close(&verdict);
    config.diagnosis.enabled = false;
    assert_true(trainer_diagnosis_open(&verdict, &comm, log_of_run, &progress, &config, 65, &error));
    norms(10, 25, 20000);
    step(1, 1, 1);
    assert_true(trainer_diagnosis_decide(&verdict, &error));
    assert_int_equal(verdict.decision.action, DIAGNOSIS_ACTION_LOG);
    assert_int_equal(reductions + broadcasts, 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_severity_has_its_action),
        cmocka_unit_test(an_info_asks_for_nothing),
        cmocka_unit_test(a_rewind_goes_to_before_the_earliest_event),
        cmocka_unit_test(a_milder_event_does_not_move_the_step_to_go_back_to),
        cmocka_unit_test(a_slow_rank_is_stopped_for_but_never_gone_back_for),
        cmocka_unit_test(all_ranks_give_their_numbers),
        cmocka_unit_test(a_decision_travels_only_where_there_can_be_one),
        cmocka_unit_test(without_diagnosis_nothing_is_judged),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
