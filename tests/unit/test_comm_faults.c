/* MPI calls that fail, one after the other: each is said as what it is. They are put in front of MPI's own, which keeps
 * its functions under a second name for that. */
#include "src/comm/gradient.h"
#include "src/comm/mpi.h"
#include "tests/unit/comm_test.h"

static const char *failing; /* this call fails, the `turn`-th time */
static int turn;

static bool fails(const char *call)
{
    return failing && strcmp(failing, call) == 0 && --turn == 0;
}

static void let_fail(const char *call, int which)
{
    failing = call;
    turn = which;
}

#define IN_FRONT_OF(name, parameters, arguments)                     \
    int MPI_##name parameters                                        \
    {                                                                \
        return fails(#name) ? MPI_ERR_OTHER : PMPI_##name arguments; \
    }

IN_FRONT_OF(Allreduce, (const void *in, void *out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
            (in, out, count, type, op, comm))
IN_FRONT_OF(Iallreduce,
            (const void *in, void *out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request *request),
            (in, out, count, type, op, comm, request))
IN_FRONT_OF(Bcast, (void *bytes, int count, MPI_Datatype type, int root, MPI_Comm comm),
            (bytes, count, type, root, comm))
IN_FRONT_OF(Send, (const void *bytes, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm),
            (bytes, count, type, to, tag, comm))
IN_FRONT_OF(Recv, (void *bytes, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Status *status),
            (bytes, count, type, from, tag, comm, status))
IN_FRONT_OF(Test, (MPI_Request * request, int *done, MPI_Status *status), (request, done, status))
IN_FRONT_OF(Testall, (int count, MPI_Request requests[], int *done, MPI_Status statuses[]),
            (count, requests, done, statuses))
IN_FRONT_OF(Op_create, (MPI_User_function * function, int commutes, MPI_Op *op), (function, commutes, op))
IN_FRONT_OF(Type_dup, (MPI_Datatype type, MPI_Datatype *copy), (type, copy))

/* ---- on the ranks ---- */

#define CHECK_SAYS(call, text)                            \
    do {                                                  \
        struct error said = {.status = ERROR_NONE};       \
        struct error *error = &said;                      \
        CHECK(!(call));                                   \
        CHECK(said.status == ERROR_RUNTIME);              \
        if (!strstr(said.message, text))                  \
            printf("not '%s': %s\n", text, said.message); \
        CHECK(strstr(said.message, text));                \
        failing = NULL;                                   \
    } while (0)

/* On one rank, where nothing is left under way. */
static void messages_fail(struct comm *comm)
{
    double number = 1;
    char byte = 'x';
    bool any;
    let_fail("Iallreduce", 1);
    CHECK_SAYS(comm_reduce(comm, &number, 1, COMM_SUM, error), "MPI_Iallreduce failed: MPI_ERR_OTHER");
    let_fail("Test", 1);
    CHECK_SAYS(comm_reduce(comm, &number, 1, COMM_SUM, error), "MPI_Test failed: MPI_ERR_OTHER");
    let_fail("Bcast", 1);
    CHECK_SAYS(comm_broadcast(comm, &byte, 1, 0, error), "MPI_Bcast failed: MPI_ERR_OTHER");
    let_fail("Iallreduce", 1);
    CHECK_SAYS(comm_any_begin(comm, true, error), "MPI_Iallreduce failed");
    struct error begun;
    CHECK(comm_any_begin(comm, true, &begun));
    let_fail("Test", 1);
    CHECK_SAYS(comm_any_end(comm, &any, error), "MPI_Test failed");
    CHECK(comm_any_end(comm, &any, &begun) && any);
}

/* A rank that did well says what failed; one that has an error of its own keeps it. */
static void agreements_fail(struct comm *comm)
{
    for (int which = 1; which <= 2; which++) {
        let_fail("Allreduce", which);
        CHECK_SAYS(comm_agree(comm, true, error), "MPI_Allreduce failed: MPI_ERR_OTHER");
        struct error own;
        error_runtime(&own, "my own");
        let_fail("Allreduce", which);
        CHECK(!comm_agree(comm, false, &own));
        CHECK(strcmp(own.message, "my own") == 0);
        failing = NULL;
    }
}

static void gathering_fails(struct comm *comm)
{
    const size_t counts[] = {1, 1};
    char all[2], mine = 'm';
    struct error ignored;
    let_fail(rank == 0 ? "Recv" : "Send", 1);
    CHECK_SAYS(comm_gather(comm, all, counts, &mine, 1, error),
               rank == 0 ? "MPI_Recv failed: MPI_ERR_OTHER" : "MPI_Send failed: MPI_ERR_OTHER");
    CHECK(comm_gather(comm, all, counts, &mine, 1, &ignored));
}

static void *no_stream(struct context *context)
{
    (void)context;
    return NULL;
}

static void gradients_fail(struct comm *comm)
{
    static const struct kernels kernels = {.stream = no_stream};
    static float gradient[100];
    struct comm_gradient_options options = {.kernels = &kernels,
                                            .gradient = gradient,
                                            .count = 100,
                                            .bucket_mib = 1e-6,
                                            .dtype = DTYPE_BFLOAT16,
                                            .timeout_s = 30};
    struct comm_gradient *sum;
    struct error ignored;
    double wait_s;
    const char *const opening[] = {"Op_create", "Type_dup"};
    for (size_t i = 0; i < 2; i++) {
        let_fail(opening[i], 1);
        CHECK_SAYS(comm_gradient_open(&sum, comm, &options, error), "the bf16 gradient reduction could not be set up");
        comm_gradient_close(sum);
    }
    CHECK(comm_gradient_open(&sum, comm, &options, &ignored));
    CHECK(comm_gradient_progress(sum, &ignored)); /* nothing has begun */
    let_fail("Iallreduce", 2);
    CHECK_SAYS(comm_gradient_ready(sum, 100, error), "MPI_Iallreduce of gradient bucket 1 failed");
    CHECK(comm_gradient_ready(sum, 100, &ignored));
    let_fail("Testall", 1);
    CHECK_SAYS(comm_gradient_progress(sum, error), "the gradient all-reduce failed");
    let_fail("Testall", 1);
    CHECK_SAYS(comm_gradient_ready(sum, 100, error), "the gradient all-reduce failed");
    let_fail("Testall", 1);
    CHECK_SAYS(comm_gradient_finish(sum, 7, &wait_s, error), "the gradient all-reduce of step 7 failed");
    CHECK(comm_gradient_finish(sum, 7, &wait_s, &ignored));
    comm_gradient_close(sum);
}

static const struct rank_case cases[] = {
    {"messages", messages_fail},
    {"agreements", agreements_fail},
    {"gathering", gathering_fails},
    {"gradients", gradients_fail},
};

/* ---- from outside ---- */

static void a_call_that_fails_is_named(void **state)
{
    (void)state;
    goes_well_on(1, 1, "messages");
    goes_well_on(1, 1, "agreements");
    goes_well_on(2, 2, "gathering");
}

static void a_gradient_bucket_that_fails_is_named(void **state)
{
    (void)state;
    goes_well_on(2, 2, "gradients");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_fails_is_named),
        cmocka_unit_test(a_gradient_bucket_that_fails_is_named),
    };
    if (argc > 1)
        return be_a_rank(argc, argv, cases, sizeof cases / sizeof *cases);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
