/* Command lines from a table: what each kind of option takes and refuses, and what a mistake is called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/command_line.h"

struct arguments {
    const char *text, *operand;
    bool flag, jpeg, finished;
    size_t count, warmup, number;
};
#define INTO(member) .field = offsetof(struct arguments, member)

static const struct command_option options[] = {
    {"text", "T", "", command_line_text, .letter = 't', INTO(text)},
    {"flag", NULL, "", command_line_flag, .letter = 'f', INTO(flag)},
    {"encoding", "raw|jpeg", "", command_line_choice, INTO(jpeg)},
    {"count", "N", "", command_line_count, INTO(count)},
    {"warmup", "N", "", command_line_count_or_none, INTO(warmup)},
    {"number", "N", "", command_line_number, .most = 100, INTO(number)},
    {"number-of-all", "N", "", command_line_number, .most = SIZE_MAX, INTO(number)},
    {0},
};

static bool take_operand(void *into, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    if (arguments->operand)
        return error_input(error, "'%s' is one too many", text);
    arguments->operand = text;
    return true;
}

static bool finish(void *into, struct error *error)
{
    struct arguments *arguments = into;
    arguments->finished = true;
    return arguments->operand || error_input(error, "no operand");
}

static const struct command_line with_operand = {options, "FILE", "", take_operand, finish};
static const struct command_line without_operand = {options, NULL, "", NULL, NULL};

/* The words of `text`, one blank between two. */
static bool parse(const struct command_line *line, const char *text, struct arguments *arguments, struct error *error)
{
    static char copy[512];
    char *argv[32] = {"program"};
    int argc = 1;
    strcpy(copy, text);
    for (char *word = copy; word; argc++) {
        char *blank = strchr(word, ' ');
        argv[argc] = word;
        if (blank)
            *blank++ = '\0';
        word = blank;
    }
    *arguments = (struct arguments){.count = 5, .warmup = 3, .number = 7};
    return command_line_parse(line, argc, argv, arguments, error);
}

static void every_kind_of_value_is_taken(void **state)
{
    struct arguments arguments;
    struct error error;
    (void)state;
    assert_true(parse(&with_operand, "--text=a=b file", &arguments, &error));
    assert_string_equal(arguments.text, "a=b");
    assert_string_equal(arguments.operand, "file");
    assert_true(arguments.finished);
    assert_false(arguments.flag || arguments.jpeg);
    assert_true(arguments.count == 5 && arguments.warmup == 3 && arguments.number == 7);

    assert_true(parse(&with_operand, "file -ft x --enc jpeg --count 12 --warmup 0 --number 100", &arguments, &error));
    assert_string_equal(arguments.text, "x");
    assert_true(arguments.flag && arguments.jpeg);
    assert_true(arguments.count == 12 && arguments.warmup == 0 && arguments.number == 100);

    assert_true(parse(&without_operand, "--encoding jpeg --encoding raw --warmup 4 --number-of 18446744073709551615",
                      &arguments, &error));
    assert_false(arguments.jpeg);
    assert_true(arguments.warmup == 4 && arguments.number == SIZE_MAX);

    assert_true(parse(&with_operand, "-- --text", &arguments, &error));
    assert_string_equal(arguments.operand, "--text");
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *words, *message;
    } mistakes[] = {
        {"--nope", "--nope is not an option of this program; --help lists them"},
        {"-x", "-x is not an option of this program; --help lists them"},
        {"--numb 3", "--numb is not an option of this program; --help lists them"}, /* of two */
        {"--flag=1", "--flag takes no value"},
        {"--text", "--text needs a value: T"},
        {"--count 0", "--count: '0' is not a positive whole number"},
        {"--count -1", "--count: '-1' is not a positive whole number"},
        {"--count 2x", "--count: '2x' is not a positive whole number"},
        {"--count=", "--count: '' is not a positive whole number"},
        {"--count 9223372036854775808", "--count: '9223372036854775808' is not a positive whole number"},
        {"--warmup -1", "--warmup: '-1' is not a positive whole number"},
        {"--number 101", "--number: '101' is not a whole number from 0 to 100"},
        {"--number -1", "--number: '-1' is not a whole number from 0 to 100"},
        {"--number +1", "--number: '+1' is not a whole number from 0 to 100"},
        {"--number 1.5", "--number: '1.5' is not a whole number from 0 to 100"},
        {"--number-of-all 18446744073709551616",
         "--number-of-all: '18446744073709551616' is not a whole number from 0 to 18446744073709551615"},
        {"--encoding ra", "--encoding: 'ra' is neither raw nor jpeg"},
        {"--encoding raw|jpeg", "--encoding: 'raw|jpeg' is neither raw nor jpeg"},
        {"--encoding jpe", "--encoding: 'jpe' is neither raw nor jpeg"},
        {"a b", "'b' is one too many"},
        {"--flag", "no operand"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        struct arguments arguments;
        struct error error;
        assert_false(parse(&with_operand, mistakes[i].words, &arguments, &error));
        assert_string_equal(error.message, mistakes[i].message);
        assert_int_equal(error.status, ERROR_INPUT);
    }
}

static void an_operand_where_none_is_taken_is_a_mistake(void **state)
{
    struct arguments arguments;
    struct error error;
    (void)state;
    assert_false(parse(&without_operand, "a", &arguments, &error));
    assert_string_equal(error.message, "the command line is not understood; --help explains it");
    assert_int_equal(error.status, ERROR_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_is_taken),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(an_operand_where_none_is_taken_is_a_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
