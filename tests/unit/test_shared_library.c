/* Libraries that are loaded when they are needed: what is said of one that is missing, and of a function. */
#include "src/base/shared_library.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void a_function_is_found_by_its_name(void **state)
{
    (void)state;
    struct error error;
    double (*cosine)(double) = NULL;
    assert_true(shared_library_open("libm.so.6", "a test needs libm", "install glibc", &error));
    assert_true(shared_library_find(&cosine, "cos", "libm", "glibc 2.0", &error));
    assert_true(cosine(0) == 1);
}

static void a_missing_library_is_named_with_the_folders_and_the_remedy(void **state)
{
    (void)state;
    struct error error;
    assert_false(shared_library_open("libquest_nowhere.so.7", "a test needs it", "make it", &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_true(strncmp(error.message, "a test needs it: libquest_nowhere.so.7: ", 40) == 0);
    const char *folders = strstr(error.message, "; looked for in ");
    assert_non_null(folders);
    assert_non_null(strstr(folders, "/lib"));
    assert_non_null(strstr(folders, " and what ldconfig lists; make it"));
}

static void a_missing_function_is_named_with_the_version_that_has_it(void **state)
{
    (void)state;
    struct error error;
    void (*function)(void);
    assert_false(shared_library_find(&function, "quest_nothing", "libm", "glibc 9.9", &error));
    assert_int_equal(error.status, ERROR_RUNTIME);
    assert_non_null(strstr(error.message, "libm has no quest_nothing; it must be glibc 9.9 or newer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_function_is_found_by_its_name),
        cmocka_unit_test(a_missing_library_is_named_with_the_folders_and_the_remedy),
        cmocka_unit_test(a_missing_function_is_named_with_the_version_that_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
