/* Work by several threads, taken in order: each item once, none too far ahead, nothing lost where it stops early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/ordered_work.h"
#include "src/base/stop_signal.h"
#include "tests/unit/brief.h"

enum { ITEMS = 200, AHEAD = 8 /* items a worker, as ordered_work.c has it */, WORKERS_MOST = 4 };

/* Results are pointers into `made`; all but what `take` alone touches is atomic. */
struct trial {
    size_t workers, fail_at, signal_at;         /* fail_at, signal_at: ITEMS for never */
    size_t wait_for;                            /* take of item 0 goes on only when so many items are made */
    useconds_t slow_take_us, slow_make_us;      /* make: of every seventh item */
    size_t taken;                               /* how many, and so the next */
    bool in_order, took_own_result;             /* so far */
    atomic_size_t done, makes, drops, ends;     /* done: items taken, as makers see it */
    atomic_size_t furthest;                     /* most items that a make was ahead of those taken */
    atomic_int made[ITEMS], busy[WORKERS_MOST]; /* calls; makers at work under this number */
    atomic_bool shared_number, wrong_number, signals_open;
};

static void *make(void *owner, size_t worker, size_t item)
{
    struct trial *trial = owner;
    sigset_t blocked;
    if (worker >= trial->workers) {
        trial->wrong_number = true;
        worker = 0;
    }
    if (atomic_fetch_add(&trial->busy[worker], 1) != 0)
        trial->shared_number = true;
    size_t ahead = item - trial->done, before = trial->furthest;
    while (ahead > before && !atomic_compare_exchange_weak(&trial->furthest, &before, ahead)) {
    }
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (!sigismember(&blocked, SIGINT) || !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGALRM))
        trial->signals_open = true;
    if (trial->slow_make_us && item % 7 == 0)
        usleep(trial->slow_make_us);
    trial->made[item]++;
    trial->makes++;
    atomic_fetch_sub(&trial->busy[worker], 1);
    return &trial->made[item];
}

static bool take(void *owner, size_t item, void *result, struct error *error)
{
    struct trial *trial = owner;
    trial->in_order = trial->in_order && item == trial->taken;
    trial->took_own_result = trial->took_own_result && result == &trial->made[item];
    for (int patience = 0; item == 0 && trial->makes < trial->wait_for && patience < 5000; patience++)
        usleep(1000);
    if (item == 0 && trial->wait_for)
        usleep(20000); /* would a worker go further? */
    if (trial->slow_take_us)
        usleep(trial->slow_take_us);
    if (item == trial->signal_at)
        raise(SIGTERM);
    trial->taken++;
    trial->done++;
    return item != trial->fail_at || error_runtime(error, "item %zu is not liked", item);
}

static void drop(void *owner, void *result)
{
    struct trial *trial = owner;
    atomic_int *made = result;
    trial->drops++;
    (*made)--;
}

static void thread_end(void *owner)
{
    ((struct trial *)owner)->ends++;
}

static struct trial trial_of(size_t workers)
{
    return (struct trial){
        .workers = workers, .fail_at = ITEMS, .signal_at = ITEMS, .in_order = true, .took_own_result = true};
}

static bool run(struct trial *trial, size_t items, struct error *error)
{
    struct ordered_work work = {items, trial->workers, trial, make, take, drop, thread_end};
    *error = (struct error){.status = ERROR_NONE};
    bool ok = ordered_work_run(&work, error);
    assert_true(trial->in_order && trial->took_own_result);
    assert_false(trial->shared_number || trial->wrong_number || trial->signals_open);
    assert_in_range(trial->furthest, 0, AHEAD * trial->workers - 1);
    assert_int_equal(trial->ends, trial->workers);
    assert_int_equal(trial->makes, trial->taken + trial->drops);
    for (size_t i = 0; i < items; i++) /* a drop takes its item back */
        assert_int_equal(trial->made[i], i < trial->taken);
    return ok;
}

static void each_item_is_taken_once_and_in_order(void **state)
{
    (void)state;
    struct error error;
    const useconds_t slow[][2] = {{0, 0}, {300, 0}, {0, 500}, {200, 200}}; /* take, make */
    for (size_t workers = 1; workers <= WORKERS_MOST; workers++)
        for (size_t s = 0; s < 4; s++) {
            struct trial trial = trial_of(workers);
            trial.slow_take_us = slow[s][0];
            trial.slow_make_us = slow[s][1];
            assert_true(run(&trial, ITEMS, &error));
            assert_int_equal(error.status, ERROR_NONE);
            assert_int_equal(trial.taken, ITEMS);
            assert_int_equal(trial.drops, 0);
        }
}

/* While the first item is being taken, 8 a worker are made, itself among them, and no more. */
static void workers_run_ahead_but_not_too_far(void **state)
{
    (void)state;
    struct error error;
    for (size_t workers = 1; workers <= WORKERS_MOST; workers++) {
        struct trial trial = trial_of(workers);
        trial.wait_for = AHEAD * workers;
        assert_true(run(&trial, ITEMS, &error));
        assert_int_equal(trial.furthest, AHEAD * workers - 1);
    }
}

static void few_items_are_enough(void **state)
{
    (void)state;
    struct error error;
    const size_t counts[] = {0, 1, 3, AHEAD, AHEAD + 1, 3 * AHEAD, 3 * AHEAD + 1};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct trial trial = trial_of(3);
        assert_true(run(&trial, counts[i], &error));
        assert_int_equal(trial.taken, counts[i]);
    }
}

static void what_take_refuses_ends_the_work(void **state)
{
    (void)state;
    const size_t places[] = {0, 1, 50, ITEMS - 1};
    for (size_t workers = 1; workers <= WORKERS_MOST; workers += 3)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            struct error error;
            char message[64];
            struct trial trial = trial_of(workers);
            trial.fail_at = places[i];
            trial.wait_for = places[i] == 0 ? AHEAD * workers : 0; /* all of which but one are dropped */
            assert_false(run(&trial, ITEMS, &error));
            snprintf(message, sizeof message, "item %zu is not liked", places[i]);
            assert_string_equal(error.message, message);
            assert_int_equal(trial.taken, places[i] + 1);
            assert_true(places[i] > 0 || trial.drops >= AHEAD * workers - 1);
        }
}

static void a_stop_signal_ends_the_work(void **state)
{
    (void)state;
    struct error error;
    struct trial trial = trial_of(2);
    sigset_t before, after;
    trial.signal_at = 30;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_true(stop_signal_install(&error));
    assert_false(run(&trial, ITEMS, &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_string_equal(error.message, "interrupted after 31 of 200; nothing is kept");
    assert_int_equal(trial.taken, 31);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
    assert_int_equal(sigismember(&before, SIGALRM), sigismember(&after, SIGALRM));
}

static void cpus_are_those_of_this_process(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(ordered_work_cpus(), CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(ordered_work_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_is_taken_once_and_in_order),
        cmocka_unit_test(workers_run_ahead_but_not_too_far),
        cmocka_unit_test(few_items_are_enough),
        cmocka_unit_test(what_take_refuses_ends_the_work),
        cmocka_unit_test(cpus_are_those_of_this_process),
        cmocka_unit_test(a_stop_signal_ends_the_work), /* the last: the signal stays raised */
    };
    alarm(test_is_brief() ? 550 : 120); /* what goes wrong among threads mostly hangs */
    return cmocka_run_group_tests_name("ordered_work", tests, NULL, NULL);
}
