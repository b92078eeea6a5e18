/* Ranks: each test starts this program once more under mpirun, and every rank checks what it was told. */
#include "src/base/clock.h"
#include "src/comm/device.h"
#include "src/comm/gradient.h"
#include "tests/unit/comm_test.h"

/* ---- what the ranks do ---- */

static void ranks_know_each_other(struct comm *comm)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    CHECK(comm_local_size(comm) == size && comm_local_rank(comm) == rank);
    CHECK(strcmp(comm_host(comm), host) == 0 && strcmp(comm_host_of(comm, size - 1), host) == 0);
}

static void numbers_are_reduced(struct comm *comm)
{
    struct error error;
    const double sums = size * (size + 1) / 2.0;
    double sum[3] = {rank + 1, -2.0 * (rank + 1), 0.5}, least[2] = {rank, -rank}, most[2] = {rank, -rank};
    CHECK(comm_reduce(comm, sum, 2, COMM_SUM, &error));
    CHECK(sum[0] == sums && sum[1] == -2 * sums && sum[2] == 0.5);
    CHECK(comm_reduce(comm, least, 2, COMM_MIN, &error) && least[0] == 0 && least[1] == 1 - size);
    CHECK(comm_reduce(comm, most, 2, COMM_MAX, &error) && most[0] == size - 1 && most[1] == 0);
}

static void bytes_are_spread_and_gathered(struct comm *comm)
{
    struct error error;
    char word[8] = "nothing";
    if (rank == size - 1)
        memcpy(word, "from me", sizeof word);
    CHECK(comm_broadcast(comm, word, 5, size - 1, &error));
    CHECK(strcmp(word, rank == size - 1 ? "from me" : "from ng") == 0);

    /* Rank 0 has more than rank 1, which has nothing, and less than rank 2. */
    const size_t counts[] = {2, 0, 5};
    char mine[] = "aabbbccccc", all[16] = "---------------";
    const size_t begins[] = {0, 2, 5};
    CHECK(comm_gather(comm, all, counts, mine + begins[rank], counts[rank], &error));
    CHECK(strcmp(all, rank != 0 ? "---------------" : size == 3 ? "aaccccc--------" : "aa-------------") == 0);
}

static void any_rank_is_heard(struct comm *comm)
{
    struct error error;
    for (int speaker = -1; speaker < size; speaker++) {
        bool any = speaker < 0;
        CHECK(comm_any_begin(comm, rank == speaker, &error) && comm_any_end(comm, &any, &error));
        CHECK(any == (speaker >= 0));
    }
}

/* Which ranks fail is in the bits of `bad`; every rank gets the error of the lowest of them. */
static void agree(struct comm *comm, unsigned bad, const char *prefix, int first)
{
    struct error error = {.status = ERROR_NONE};
    char expected[256];
    bool ok = !(bad >> rank & 1);
    if (!ok)
        error_input(&error, "no good on %d", rank);
    CHECK(comm_agree(comm, ok, &error) == (bad == 0));
    snprintf(expected, sizeof expected, "%sno good on %d", prefix, first);
    CHECK(bad == 0 || (strcmp(error.message, expected) == 0 && error.status == ERROR_INPUT && error.shared));
}

static void ranks_agree(struct comm *comm)
{
    char prefix[128];
    snprintf(prefix, sizeof prefix, "rank 1 (%s): ", comm_host(comm));
    agree(comm, 0, "", 0);
    if (size == 3) {
        agree(comm, 2, prefix, 1);
        agree(comm, 6, prefix, 1);
    }
    agree(comm, 1, "", 0);                /* rank 0 acts for all */
    agree(comm, (1u << size) - 1, "", 0); /* a mistake that every rank sees */
    agree(comm, 0, "", 0);
}

static void all_is_told(struct comm *comm)
{
    ranks_know_each_other(comm);
    numbers_are_reduced(comm);
    bytes_are_spread_and_gathered(comm);
    any_rank_is_heard(comm);
    ranks_agree(comm);
}

struct other_work {
    unsigned calls;
    bool fails;
};

static bool work_on(void *owner, struct error *error)
{
    struct other_work *work = owner;
    work->calls++;
    return !work->fails || error_runtime(error, "the other work failed");
}

static void other_work_goes_on(struct comm *comm)
{
    struct other_work works[3] = {{0}};
    struct comm_waiting waiting[3];
    struct error error;
    double zero = 0;
    for (int i = 0; i < 3; i++) {
        waiting[i] = (struct comm_waiting){.function = work_on, .owner = &works[i]};
        comm_while_waiting(comm, &waiting[i]);
    }
    comm_no_longer_while_waiting(comm, &waiting[1]);
    comm_no_longer_while_waiting(comm, &waiting[1]); /* is not there any more: nothing happens */
    if (rank == 1)
        sleep_s(0.7);
    CHECK(comm_reduce(comm, &zero, 1, COMM_SUM, &error));
    CHECK(works[1].calls == 0 && works[0].calls == works[2].calls);
    CHECK(rank == 1 || (works[0].calls > 10 && works[0].calls < 100000));
    comm_no_longer_while_waiting(comm, &waiting[0]);
    comm_no_longer_while_waiting(comm, &waiting[2]);
}

static void failing_work_ends_the_job(struct comm *comm)
{
    struct other_work work = {.fails = true};
    struct comm_waiting waiting = {.function = work_on, .owner = &work};
    struct error error = {.status = ERROR_NONE};
    double zero = 0;
    comm_while_waiting(comm, &waiting);
    if (rank == 1)
        sleep_s(20);
    CHECK(!comm_reduce(comm, &zero, 1, COMM_SUM, &error));
    CHECK(work.calls == 1);
    error_shared(&error); /* yet it is this rank alone that knows: somebody is lost */
    comm_exit(comm, &error);
}

static void a_late_rank_is_named(struct comm *comm)
{
    struct error error = {.status = ERROR_NONE};
    bool any;
    comm_set_timeout(comm, 0.3);
    if (rank == 1)
        sleep_s(20);
    CHECK(comm_any_begin(comm, false, &error));
    double begin = clock_s();
    CHECK(!comm_any_end(comm, &any, &error));
    CHECK(clock_s() - begin > 0.3 && clock_s() - begin < 15);
    if (rank == 0)
        comm_exit(comm, &error);
    sleep_s(20);
}

static void silence_is_noticed(struct comm *comm)
{
    struct error error = {.status = ERROR_NONE};
    int silent = 7;
    CHECK(!comm_timed_out(comm, "the sum of step 5", "in the sum of step 5", 7, &error));
    CHECK(
        strstr(error.message, "the sum of step 5 took longer than comm.timeout_s = 7 s though every rank is waiting"));
    /* together: a rank that is still listening would take the next question's answer for the last one's */
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 2)
        sleep_s(4);
    else
        CHECK(comm_find_silent_rank(comm, &silent, &error) && silent == 2);
}

static void expect_finalized(void)
{
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized)
        _exit(9);
}

static void an_error_of_all(struct comm *comm)
{
    struct error error;
    atexit(expect_finalized);
    bool ok = comm_agree(comm, error_input(&error, "the key is wrong"), &error);
    CHECK(!ok);
    comm_exit(comm, &error);
}

static void an_error_of_one(struct comm *comm)
{
    struct error error;
    if (rank == size - 1) {
        error_runtime(&error, "the disk is gone");
        comm_exit(comm, &error);
    }
    sleep_s(20);
}

static void *no_stream(struct context *context)
{
    (void)context;
    return NULL;
}

/* Five buckets of 64 numbers and one of 17, told of in pieces that end anywhere, twice. */
static void sum_gradients(struct comm *comm, enum dtype dtype)
{
    enum { COUNT = 5 * 64 + 17, AFTER = 64 };
    static const struct kernels kernels = {.stream = no_stream};
    static float gradient[COUNT + AFTER];
    struct comm_gradient_options options = {
        .kernels = &kernels, .gradient = gradient, .count = COUNT, .bucket_mib = 1e-6, .dtype = dtype, .timeout_s = 30};
    struct comm_gradient *sum = NULL;
    struct error error;
    double wait_s = -1;
    size_t scratch = comm_gradient_scratch_bytes(comm, &options);
    CHECK(scratch == (size > 1 && dtype == DTYPE_BFLOAT16 ? COUNT * sizeof(uint16_t) : 0));
    CHECK(comm_gradient_open(&sum, comm, &options, &error) && (sum != NULL) == (size > 1));
    for (int step = 1; step <= 2; step++) {
        for (size_t i = 0; i < COUNT + AFTER; i++)
            gradient[i] = (float)((rank + 1) * (int)(1 + i % 3));
        for (size_t done = 0; done < COUNT; done += done < 64 ? 63 : 100)
            CHECK(comm_gradient_ready(sum, done, &error) && comm_gradient_progress(sum, &error));
        CHECK(comm_gradient_ready(sum, COUNT, &error) && comm_gradient_finish(sum, (uint64_t)step, &wait_s, &error));
        CHECK(wait_s >= 0 && wait_s < 20);
        for (size_t i = 0; i < COUNT + AFTER; i++) {
            int ranks_sum = i < COUNT ? size * (size + 1) / 2 : rank + 1; /* what lies behind is not touched */
            CHECK(gradient[i] == (float)(ranks_sum * (int)(1 + i % 3)));
        }
    }
    comm_gradient_close(sum);
}

static void gradients_are_summed(struct comm *comm)
{
    sum_gradients(comm, DTYPE_FLOAT32);
    sum_gradients(comm, DTYPE_BFLOAT16);
    double zero = 0;
    struct error error;
    if (rank == 0)
        sleep_s(0.2); /* nothing is left of the sums in what the others do while they wait */
    CHECK(comm_reduce(comm, &zero, 1, COMM_SUM, &error));
}

static void devices_are_chosen(struct comm *comm)
{
    const struct kernels *kernels;
    struct error error = {.status = ERROR_NONE};
    int device = -1;
    CHECK(device_choose(&kernels, &device, "cpu", comm, &error) && kernels == kernels_cpu() && device == rank);
    CHECK(!device_choose(&kernels, &device, "gpu", comm, &error) && error.status == ERROR_INPUT);
    CHECK(strcmp(error.message, "--device gpu: auto, cpu or cuda is expected") == 0);
    if (kernels_cuda())
        return;
    CHECK(device_choose(&kernels, &device, "auto", comm, &error) && kernels == kernels_cpu());
    CHECK(!device_choose(&kernels, &device, "cuda", comm, &error) && error.status == ERROR_INPUT);
    CHECK(strstr(error.message, "this build has no CUDA backend"));
}

static const struct rank_case cases[] = {
    {"told", all_is_told},
    {"other_work", other_work_goes_on},
    {"failing_work", failing_work_ends_the_job},
    {"late", a_late_rank_is_named},
    {"silence", silence_is_noticed},
    {"error_of_all", an_error_of_all},
    {"error_of_one", an_error_of_one},
    {"gradients", gradients_are_summed},
    {"devices", devices_are_chosen},
};

/* ---- what is seen of it from outside ---- */

static void what_ranks_tell_each_other_arrives(void **state)
{
    (void)state;
    goes_well_on(1, 3, "told");
}

static void other_work_goes_on_while_a_rank_waits(void **state)
{
    (void)state;
    goes_well_on(2, 2, "other_work");
    assert_int_equal(on_ranks(2, "failing_work"), 1);
    expect_output("error: rank 0 (");
    expect_output("): the other work failed\n");
}

static void a_rank_that_stays_away_is_named(void **state)
{
    (void)state;
    assert_int_equal(on_ranks(3, "late"), 1);
    expect_output("error: rank 0 (");
    expect_output("): rank 1 (");
    expect_output(") stopped answering between two steps (comm.timeout_s = 0.3 s)\n");
    goes_well_on(3, 3, "silence");
}

static void an_error_is_said_once(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 2; ranks++) {
        assert_int_equal(on_ranks(ranks, "error_of_all"), 2);
        expect_output("error: the key is wrong\n");
    }
    assert_int_equal(on_ranks(1, "error_of_one"), 1);
    expect_output("error: the disk is gone\n");
    assert_int_equal(on_ranks(2, "error_of_one"), 1);
    expect_output("error: rank 1 (");
    expect_output("): the disk is gone\n");
}

static void gradients_of_all_ranks_are_summed(void **state)
{
    (void)state;
    goes_well_on(1, 3, "gradients");
}

static void each_rank_has_its_device(void **state)
{
    (void)state;
    goes_well_on(1, 2, "devices");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_ranks_tell_each_other_arrives),
        cmocka_unit_test(gradients_of_all_ranks_are_summed),
        cmocka_unit_test(each_rank_has_its_device),
        cmocka_unit_test(an_error_is_said_once),
        cmocka_unit_test(other_work_goes_on_while_a_rank_waits),
        cmocka_unit_test(a_rank_that_stays_away_is_named),
    };
    if (argc > 1)
        return be_a_rank(argc, argv, cases, sizeof cases / sizeof *cases);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
