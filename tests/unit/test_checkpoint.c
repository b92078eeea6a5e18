/* Checkpoints: what is written is read back bit for bit, by us and by h5py; damage is found.
 */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/brief.h"
#include "tests/unit/checkpoint_test.h"

/* ---- whole files ---- */

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static struct memory written, read;
    struct error error;
    write_step(&written, 1000);
    assert_true(read_all(&read, scratch_path("step_00001000.h5"), &error));
    assert_true(same(&written, &read));
    checkpoint_free(&read.checkpoint);
    char command[128];
    snprintf(command, sizeof command, "test $(ls -A %s | wc -l) = 1", scratch);
    assert_int_equal(system(command), 0);
}

/* Written before there were rewinds and skipped updates; and with numbers that no run writes. */
static void older_files_have_no_rewinds_and_wrong_ones_are_refused(void **state)
{
    (void)state;
    static struct memory memory;
    struct error error;
    char command[512];
    const struct {
        const char *edit, *message; /* NULL: it is read */
    } edits[] = {
        {"for n in ('lr_scale', 'rewinds', 'gradient_norms', 'class_names'): del f.attrs[n]", NULL},
        {"f.attrs['lr_scale'] = 0.0", "'lr_scale' or 'gradient_norms' are out of range"},
        {"f.attrs['lr_scale'] = numpy.nan", "'lr_scale' or 'gradient_norms' are out of range"},
        {"f.attrs['lr_scale'] = [1.0, 1.0]", "step_00000009.h5: attribute lr_scale cannot be read ("},
        {"f.attrs['rewinds'] = -1", "rewinds"},
        {"f.attrs['gradient_norms'] = [1.0, numpy.inf]", "'lr_scale' or 'gradient_norms' are out of range"},
        {"f.attrs['gradient_norms'] = numpy.ones(130)", "step_00000009.h5: attribute gradient_norms cannot be read ("},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        write_step(&memory, 9);
        /* The last 32 bytes are the seal, which a file of another program does not have. */
        snprintf(command, sizeof command,
                 "cd %s && truncate -s -32 step_00000009.h5 && /usr/bin/python3 -c \"import h5py, numpy\n"
                 "with h5py.File('step_00000009.h5', 'r+') as f:\n %s\"",
                 scratch, edits[i].edit);
        assert_int_equal(system(command), 0);
        struct checkpoint header;
        bool ok = checkpoint_read_header(&header, scratch_path("step_00000009.h5"), &error);
        assert_int_equal(ok, edits[i].message == NULL);
        if (!ok && !strstr(error.message, edits[i].message))
            fail_msg("'%s' is not in: %s", edits[i].message, error.message);
        if (!ok)
            continue;
        assert_true(header.lr_scale == 1 && header.rewinds == 0 && header.gradient_norm_count == 0);
        assert_null(header.class_names);
        checkpoint_free(&header);
    }
}

static void the_same_state_gives_the_same_bytes(void **state)
{
    (void)state;
    static struct memory memory;
    write_step(&memory, 7);
    char command[400];
    /* Past a second, so that a time stamp would differ. */
    snprintf(command, sizeof command, "cd %s && mv step_00000007.h5 first && sleep 1.1", scratch);
    assert_int_equal(system(command), 0);
    write_step(&memory, 7);
    snprintf(command, sizeof command, "cd %s && cmp step_00000007.h5 first", scratch);
    assert_int_equal(system(command), 0);
}

static void h5py_reads_it(void **state)
{
    (void)state;
    static struct memory memory;
    write_step(&memory, 1000);
    static const char script[] =
        "import h5py, numpy, sys\n"
        "f = h5py.File(sys.argv[1], 'r')\n"
        "a = f.attrs\n"
        "assert a['format'] == 'quest-checkpoint' and a['version'] == 1 and a['step'] == 1000, dict(a)\n"
        "assert a['epoch'] == 3 and a['world_size'] == 2 and a['config'].startswith('model:'), dict(a)\n"
        "assert a['mean'].shape == (3,) and a['mean'].dtype == numpy.float32\n"
        "assert sorted(f) == ['adamw', 'params'] and sorted(f['adamw']) == ['m', 'v']\n"
        "p = f['params/patch_embed.proj.weight']\n"
        "assert p.shape == (8, 3, 4, 4) and p.dtype == numpy.float32 and p.fletcher32\n"
        "expected = numpy.sin(numpy.arange(8, 392, dtype='f4') + numpy.float32(1000)).reshape(p.shape)\n"
        "assert numpy.abs(p[:] - expected).max() < 1e-6\n"
        "assert f['adamw/v/cls_token'].shape == (1, 1, 8)\n";
    FILE *file = fopen(scratch_path("check.py"), "w");
    assert_non_null(file);
    fputs(script, file);
    fclose(file);
    char command[400];
    snprintf(command, sizeof command, "/usr/bin/python3 %s/check.py %s/step_00001000.h5", scratch, scratch);
    assert_int_equal(system(command), 0);
}

/* A configuration may have 60,000 bytes, the names of the classes a MiB; longer names are left out. */
static void the_longest_texts_come_back(void **state)
{
    (void)state;
    enum { CONFIG = 60000, NAMES = 1 << 20 };
    static struct memory memory;
    static char config[CONFIG + 2], names[NAMES + 2];
    struct checkpoint header;
    struct error error;
    fill(&memory, 1);
    memset(config, 'c', CONFIG);
    memset(names, 'n', NAMES);
    memory.checkpoint.config = config;
    memory.checkpoint.class_names = names;
    for (int longer = 0; longer <= 1; longer++) {
        names[NAMES] = longer ? 'n' : '\0';
        assert_true(checkpoint_write(scratch, &memory.checkpoint, &error));
        assert_true(checkpoint_read_header(&header, scratch_path("step_00000001.h5"), &error));
        assert_string_equal(header.config, config);
        assert_true(longer ? header.class_names == NULL : strcmp(header.class_names, names) == 0);
        checkpoint_free(&header);
    }
    config[CONFIG] = 'c';
    assert_false(checkpoint_write(scratch, &memory.checkpoint, &error));
    assert_non_null(strstr(error.message, "the configuration has more than 60000 bytes"));
}

/* ---- other models and other files ---- */

static void expect_refusal(const struct memory *memory, bool optimiser, bool format, const char *needle)
{
    struct error error;
    assert_false(
        checkpoint_read_tensors(scratch_path("step_00000001.h5"), &memory->checkpoint, optimiser, format, &error));
    assert_int_equal(error.status, ERROR_INPUT);
    if (!strstr(error.message, needle))
        fail_msg("'%s' is not in: %s", needle, error.message);
}

static void another_model_is_refused_by_the_tensor_s_name(void **state)
{
    (void)state;
    static struct memory memory;
    write_step(&memory, 1);
    memory.tensors[3].shape[0] = 12;
    expect_refusal(&memory, true, true, "/params/head.weight has shape [10, 8], the model's is [12, 8]");
    memory.tensors[3] = (struct checkpoint_tensor){
        .name = "head.bias", .rank = 1, .shape = {10}, .parameter = memory.parameter, .m = memory.m, .v = memory.v};
    expect_refusal(&memory, true, true, "has no /params/head.bias");
    memory.checkpoint.tensor_count = 3;
    expect_refusal(&memory, true, true, "holds /params/head.weight, which the model does not have");
}

static void weights_alone_are_enough_to_start_from(void **state)
{
    (void)state;
    static struct memory memory, read;
    fill(&memory, 1);
    for (size_t i = 0; i < TENSORS; i++)
        memory.tensors[i].m = memory.tensors[i].v = NULL;
    struct error error;
    assert_true(checkpoint_write(scratch, &memory.checkpoint, &error));
    memset(&read, 0, sizeof read);
    lay_out(&read);
    assert_true(checkpoint_read_tensors(scratch_path("step_00000001.h5"), &read.checkpoint, false, false, &error));
    assert_memory_equal(read.parameter, memory.parameter, 8 * sizeof(float));
    expect_refusal(&read, true, true, "has no group /adamw/m");
}

/* A file that another program made: /params alone, double precision, compressed, no attributes. */
static void a_file_with_nothing_but_params_is_accepted_for_init(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c \"\nimport h5py, numpy\nf = h5py.File('%s/step_00000001.h5', 'w')\n"
             "for n, s in [('cls_token', (1, 1, 8)), ('patch_embed.proj.weight', (8, 3, 4, 4)), "
             "('blocks.0.attn.scale', (3,)), ('head.weight', (10, 8))]:\n"
             "    f.create_dataset('params/' + n, data=numpy.full(s, 0.5), compression='gzip', chunks=True)\n\"",
             scratch);
    assert_int_equal(system(command), 0);
    static struct memory memory;
    lay_out(&memory);
    struct error error;
    if (!checkpoint_read_tensors(scratch_path("step_00000001.h5"), &memory.checkpoint, false, false, &error))
        fail_msg("%s", error.message);
    assert_true(memory.parameter[0] == 0.5f && memory.parameter[474] == 0.5f);
    struct checkpoint header;
    assert_false(checkpoint_read_header(&header, scratch_path("step_00000001.h5"), &error));
}

static void links_out_of_the_file_are_refused(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c \"\nimport h5py, numpy\nf = h5py.File('%s/step_00000001.h5', 'w')\n"
             "f.create_group('params')['cls_token'] = h5py.ExternalLink('/tmp/other.h5', '/x')\n\"",
             scratch);
    assert_int_equal(system(command), 0);
    static struct memory memory;
    lay_out(&memory);
    expect_refusal(&memory, false, false, "/params/cls_token is a link");
}

/* For --init: a missing tensor, a group, a link and a dataset of five dimensions have no shape, and that is no error.
 */
static void shapes_are_read_of_what_is_a_tensor(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command,
             "/usr/bin/python3 -c \"\nimport h5py, numpy\nf = h5py.File('%s/step_00000001.h5', 'w')\n"
             "p = f.create_group('params')\np['a'] = numpy.zeros((7, 8))\np.create_group('b')\n"
             "p['c'] = numpy.zeros((1, 1, 1, 1, 2))\np['d'] = h5py.ExternalLink('/tmp/other.h5', '/x')\n\"",
             scratch);
    assert_int_equal(system(command), 0);
    struct checkpoint_tensor tensors[] = {{.name = "a", .rank = 1},
                                          {.name = "b", .rank = 1},
                                          {.name = "c", .rank = 1},
                                          {.name = "d", .rank = 1},
                                          {.name = "e", .rank = 1}};
    struct error error;
    assert_true(checkpoint_read_shapes(scratch_path("step_00000001.h5"), tensors, 5, &error));
    assert_true(tensors[0].rank == 2 && tensors[0].shape[0] == 7 && tensors[0].shape[1] == 8);
    for (size_t i = 1; i < 5; i++)
        assert_int_equal(tensors[i].rank, 0);
    assert_false(checkpoint_read_shapes(scratch_path("absent.h5"), tensors, 5, &error));
    assert_int_equal(error.status, ERROR_INPUT);
}

static void a_tensor_without_memory_is_left_in_the_file(void **state)
{
    (void)state;
    static struct memory written, read;
    struct error error;
    write_step(&written, 1);
    memset(&read, 0, sizeof read);
    lay_out(&read);
    read.tensors[3].parameter = NULL;
    assert_true(checkpoint_read_tensors(scratch_path("step_00000001.h5"), &read.checkpoint, false, false, &error));
    assert_memory_equal(read.parameter, written.parameter, 8 * sizeof(float));
}

static void what_is_no_checkpoint_is_named(void **state)
{
    (void)state;
    struct checkpoint header;
    struct error error;
    assert_false(checkpoint_read_header(&header, scratch_path("absent.h5"), &error));
    assert_non_null(strstr(error.message, "absent.h5: No such file"));
    FILE *file = fopen(scratch_path("text.h5"), "w");
    fputs("this is not an HDF5 file", file);
    fclose(file);
    assert_false(checkpoint_read_header(&header, scratch_path("text.h5"), &error));
    assert_non_null(strstr(error.message, "text.h5: is not an HDF5 file"));
}

/* ---- damage ---- */

/* In a child with a time limit, because HDF5 may fall over a hostile byte: 0 = an error, 1 = the same contents. */
static int outcome_of(const struct memory *written, const char *path)
{
    static struct memory read;
    pid_t child = fork();
    if (child == 0) {
        struct error error = {0};
        alarm(10);
        if (!read_all(&read, path, &error))
            _exit(error.status == ERROR_RUNTIME && error.message[0] ? 0 : 3);
        _exit(same(written, &read) ? 1 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* Every 7th byte (briefly: every 777th) with every bit inverted: the file reads as it was (a byte that means nothing)
 * or fails. */
static void no_flipped_byte_goes_unnoticed(void **state)
{
    (void)state;
    static struct memory written;
    write_step(&written, 1000);
    char path[256];
    strcpy(path, scratch_path("step_00001000.h5"));
    size_t bytes, noticed = 0, stride = test_is_brief() ? 777 : 7;
    unsigned char *contents = load(path, &bytes);
    for (size_t i = 0; i < bytes; i += stride) {
        contents[i] ^= 0xff;
        store(path, contents, bytes);
        int outcome = outcome_of(&written, path);
        contents[i] ^= 0xff;
        if (outcome > 1)
            fail_msg("byte %zu of %zu flipped: outcome %d", i, bytes, outcome);
        noticed += outcome == 0;
    }
    assert_true(noticed > 7000 / stride);
    free(contents);
}

static void a_truncated_file_is_an_error(void **state)
{
    (void)state;
    static struct memory written;
    write_step(&written, 1000);
    char path[256];
    strcpy(path, scratch_path("step_00001000.h5"));
    size_t bytes, stride = test_is_brief() ? 9797 : 97;
    unsigned char *contents = load(path, &bytes);
    for (size_t kept = 0; kept < bytes - 32; kept += stride) {
        store(path, contents, kept);
        assert_int_equal(outcome_of(&written, path), 0);
    }
    store(path, contents, bytes - 32); /* without the seal it is a checkpoint of another program's making */
    assert_int_equal(outcome_of(&written, path), 1);
    free(contents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_scratch, remove_scratch)
        TEST(what_is_written_is_read_back),
        TEST(older_files_have_no_rewinds_and_wrong_ones_are_refused),
        TEST(the_same_state_gives_the_same_bytes),
        TEST(h5py_reads_it),
        TEST(the_longest_texts_come_back),
        TEST(another_model_is_refused_by_the_tensor_s_name),
        TEST(weights_alone_are_enough_to_start_from),
        TEST(a_file_with_nothing_but_params_is_accepted_for_init),
        TEST(links_out_of_the_file_are_refused),
        TEST(shapes_are_read_of_what_is_a_tensor),
        TEST(a_tensor_without_memory_is_left_in_the_file),
        TEST(what_is_no_checkpoint_is_named),
        TEST(no_flipped_byte_goes_unnoticed),
        TEST(a_truncated_file_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
