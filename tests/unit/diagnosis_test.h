/* What the tests of the diagnosis share: one that is listened to, and nearly normal noise. */
#ifndef QUEST_TESTS_DIAGNOSIS_TEST_H
#define QUEST_TESTS_DIAGNOSIS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/diagnosis/diagnosis.h"

enum { TOKENS = 65, EVENTS = 512 };

struct heard {
    struct event events[EVENTS];
    size_t count;
};

static void hear(void *owner, const struct event *event)
{
    struct heard *heard = owner;
    assert_true(heard->count < EVENTS);
    assert_true(strlen(event->message) > 20 && strlen(event->advice) > 20);
    assert_true(event->since <= event->step);
    heard->events[heard->count++] = *event;
}

/* A diagnosis of `kind` with the defaults and TOKENS tokens, whose events are kept in `heard`. */
static inline struct diagnosis *listen_to(struct heard *heard, enum attention_kind kind)
{
    struct diagnosis_options options = diagnosis_defaults();
    struct diagnosis *diagnosis;
    struct error error;
    heard->count = 0;
    options.kind = kind;
    options.tokens = TOKENS;
    assert_true(diagnosis_open(&diagnosis, &options, hear, heard, &error));
    return diagnosis;
}

static inline void feed(struct diagnosis *diagnosis, const struct norm_record *record)
{
    struct error error;
    assert_true(diagnosis_norms(diagnosis, record, &error));
}

/* rule < 0: any. */
static inline const struct event *first_of(const struct heard *heard, int rule, enum severity least)
{
    for (size_t i = 0; i < heard->count; i++)
        if ((rule < 0 || (int)heard->events[i].kind == rule) && heard->events[i].severity >= least)
            return &heard->events[i];
    return NULL;
}

/* ---- single records ---- */

/* What one head logs at one step; 0: unknown. */
struct head {
    double query, key, key_max, logit, entropy_share;
};

static inline void feed_heads(struct diagnosis *diagnosis, uint64_t step, const struct head *heads, size_t count)
{
    double query[4], key[4], key_max[4], logit[4], entropy[4];
    for (size_t i = 0; i < count; i++) {
        query[i] = heads[i].query;
        key[i] = heads[i].key;
        key_max[i] = heads[i].key_max;
        logit[i] = heads[i].logit;
        entropy[i] = heads[i].entropy_share * log(TOKENS);
    }
    feed(diagnosis, &(struct norm_record){.step = step,
                                          .heads = count,
                                          .q_norm_mean = heads->query != 0 ? query : NULL,
                                          .k_norm_mean = heads->key != 0 ? key : NULL,
                                          .k_norm_max = heads->key_max > 0 ? key_max : NULL,
                                          .logit_max = heads->logit > 0 ? logit : NULL,
                                          .entropy_mean = heads->entropy_share > 0 ? entropy : NULL,
                                          .qkv_grad_norm = NAN});
}

static inline void feed_head(struct diagnosis *diagnosis, uint64_t step, struct head head)
{
    feed_heads(diagnosis, step, &head, 1);
}

/* The severity that `rule` has given to what was fed, at its highest. */
static inline enum severity severity_of(const struct heard *heard, enum event_kind rule)
{
    enum severity highest = SEVERITY_HEALTHY;
    for (size_t i = 0; i < heard->count; i++)
        if (heard->events[i].kind == rule && heard->events[i].severity > highest)
            highest = heard->events[i].severity;
    return highest;
}

/* ---- noise ---- */

static uint64_t noise_state;

/* Nearly normal, mean 0, deviation 1: twelve uniform numbers. */
static inline double noise(void)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(noise_state >> 11) * 0x1p-53;
    }
    return sum;
}

#endif
