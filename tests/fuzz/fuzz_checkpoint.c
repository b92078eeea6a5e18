/* Hostile checkpoints, read as --resume, quest-eval and --init read them. A first byte of 's' seals the rest, so that
 * what lies behind the checksum of the whole file is reached too. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/checkpoint/format.h"
#include "src/files/file_output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_file(const char *path)
{
    float numbers[4][40];
    struct checkpoint_tensor tensors[] = {
        {.name = "cls_token", .rank = 3, .shape = {1, 1, 8}},
        {.name = "head.weight", .rank = 2, .shape = {4, 8}},
    };
    for (int i = 0; i < 2; i++) {
        tensors[i].average = numbers[3] + 8 * i;
        tensors[i].parameter = numbers[0] + 8 * i;
        tensors[i].m = numbers[1] + 8 * i;
        tensors[i].v = numbers[2] + 8 * i;
    }
    struct checkpoint header, checkpoint = {.tensors = tensors, .tensor_count = 2};
    struct error error = {0};
    bool ok = checkpoint_read_header(&header, path, &error);
    if (ok ? header.config == NULL || header.channels > 4 : error.message[0] == '\0')
        abort();
    if (ok)
        checkpoint_free(&header);
    for (int resume = 0; resume < 2; resume++) {
        checkpoint.has_average = resume == 1;
        error = (struct error){0};
        if (!checkpoint_read_tensors(path, &checkpoint, resume, resume, &error) && error.message[0] == '\0')
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    /* Not a memfd: HDF5 wants the real path of a symbolic link, and a memfd has none. */
    char path[] = "/dev/shm/quest_fuzz_XXXXXX", seal[CHECKPOINT_SEAL_BYTES];
    int file = mkstemp(path);
    checkpoint_seal(seal, data + 1, size - 1);
    if (file >= 0 && file_write_all(file, data + 1, size - 1) &&
        (data[0] != 's' || file_write_all(file, seal, sizeof seal)))
        read_file(path);
    if (file >= 0)
        close(file);
    unlink(path);
    return 0;
}
