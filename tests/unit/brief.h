/* Under valgrind (tests/run_valgrind), where everything takes thirty times as long, tests repeat themselves less. */
#ifndef QUEST_BRIEF_H
#define QUEST_BRIEF_H

#include <stdbool.h>
#include <stdlib.h>

static inline bool test_is_brief(void)
{
    return getenv("QUEST_TEST_BRIEF") != NULL;
}

#endif
