/* The last 32 bytes of a checkpoint: "quest-checkpoint crc32 xxxxxxxx\n", the CRC-32 (zlib's) of all bytes before them.
 * HDF5 ignores what follows its end-of-file address. HDF5's own checksums leave out its global heap, where strings of
 * variable length lie (which h5py shows as str), and a flipped byte there makes libhdf5 1.10.8 read out of bounds; so a
 * sealed file is checked whole before HDF5 sees it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "src/checkpoint/format.h"

static const char mark[] = CHECKPOINT_FORMAT " crc32 ";
enum { BLOCK_BYTES = 1 << 20 };

static void format_seal(char seal[CHECKPOINT_SEAL_BYTES], uint32_t checksum)
{
    char text[CHECKPOINT_SEAL_BYTES + 1];
    snprintf(text, sizeof text, "%s%08x\n", mark, checksum);
    memcpy(seal, text, CHECKPOINT_SEAL_BYTES);
}

void checkpoint_seal(char seal[CHECKPOINT_SEAL_BYTES], const void *bytes, size_t byte_count)
{
    format_seal(seal, (uint32_t)crc32_z(crc32_z(0, NULL, 0), bytes, byte_count));
}

/* Of the first byte_count bytes. false: errno says why (0 = the file ended early). */
static bool file_checksum(int file, size_t byte_count, uint32_t *checksum)
{
    unsigned char *block = malloc(BLOCK_BYTES);
    uLong sum = crc32_z(0, NULL, 0);
    bool ok = block != NULL;
    for (size_t done = 0; ok && done < byte_count;) {
        size_t wanted = byte_count - done < BLOCK_BYTES ? byte_count - done : BLOCK_BYTES;
        errno = 0;
        ssize_t got = pread(file, block, wanted, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        ok = got > 0;
        if (ok) {
            sum = crc32_z(sum, block, (size_t)got);
            done += (size_t)got;
        }
    }
    free(block);
    *checksum = (uint32_t)sum;
    return ok;
}

bool checkpoint_check_seal(const char *path, struct error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    char found[CHECKPOINT_SEAL_BYTES], expected[CHECKPOINT_SEAL_BYTES];
    bool sealed = file >= 0 && fstat(file, &status) == 0 && status.st_size >= CHECKPOINT_SEAL_BYTES &&
                  pread(file, found, sizeof found, status.st_size - CHECKPOINT_SEAL_BYTES) == CHECKPOINT_SEAL_BYTES &&
                  memcmp(found, mark, sizeof mark - 1) == 0;
    bool ok = true;
    if (sealed) {
        uint32_t checksum;
        ok = file_checksum(file, (size_t)status.st_size - CHECKPOINT_SEAL_BYTES, &checksum);
        format_seal(expected, checksum);
        if (!ok)
            error_runtime(error, "%s: cannot be read: %s", path, errno ? strerror(errno) : "it became shorter");
        else if (memcmp(found, expected, sizeof found) != 0)
            ok = error_runtime(error, "%s: the checksum of the file is wrong; the file is damaged", path);
    }
    if (file >= 0)
        close(file);
    return ok;
}
