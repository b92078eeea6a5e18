/* An HDF5 file driver that notes where a chunk would be read instead of reading it. */
#include "src/files/h5_chunks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* HDF5 hands this back as H5FD_t. */
struct driver_file {
    H5FD_t common;
    int file;
    haddr_t end, used; /* of the file; of what HDF5 takes for allocated */
    dev_t device;
    ino_t inode;
    bool noting, noted;
    haddr_t address;
    size_t bytes;
};

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t largest)
{
    (void)access;
    (void)largest;
    struct stat status;
    struct driver_file *driver = calloc(1, sizeof *driver);
    if (!driver || flags & (H5F_ACC_RDWR | H5F_ACC_CREAT | H5F_ACC_TRUNC)) {
        free(driver);
        return NULL;
    }
    driver->file = open(name, O_RDONLY | O_CLOEXEC);
    if (driver->file < 0 || fstat(driver->file, &status) != 0) {
        if (driver->file >= 0)
            close(driver->file);
        free(driver);
        return NULL;
    }
    driver->end = (haddr_t)status.st_size;
    driver->device = status.st_dev;
    driver->inode = status.st_ino;
    return &driver->common;
}

static herr_t driver_close(H5FD_t *common)
{
    struct driver_file *driver = (struct driver_file *)common;
    close(driver->file);
    free(driver);
    return 0;
}

static int driver_compare(const H5FD_t *a, const H5FD_t *b)
{
    const struct driver_file *x = (const struct driver_file *)a, *y = (const struct driver_file *)b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return (x->inode > y->inode) - (x->inode < y->inode);
}

static haddr_t driver_get_used(const H5FD_t *common, H5FD_mem_t type)
{
    (void)type;
    return ((const struct driver_file *)common)->used;
}

static herr_t driver_set_used(H5FD_t *common, H5FD_mem_t type, haddr_t used)
{
    (void)type;
    ((struct driver_file *)common)->used = used;
    return 0;
}

static haddr_t driver_get_end(const H5FD_t *common, H5FD_mem_t type)
{
    (void)type;
    return ((const struct driver_file *)common)->end;
}

static herr_t driver_get_handle(H5FD_t *common, hid_t access, void **handle)
{
    (void)access;
    *handle = common;
    return 0;
}

static herr_t driver_read(H5FD_t *common, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes, void *buffer)
{
    (void)transfer;
    struct driver_file *driver = (struct driver_file *)common;
    char *to = buffer;
    if (driver->noting && type == H5FD_MEM_DRAW) {
        driver->address = address;
        driver->bytes = bytes;
        driver->noted = true;
        return 0;
    }
    if (address > driver->end || bytes > driver->end - address)
        return -1;
    while (bytes > 0) {
        ssize_t got = pread(driver->file, to, bytes, (off_t)address);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        to += got;
        address += (haddr_t)got;
        bytes -= (size_t)got;
    }
    return 0;
}

static herr_t driver_write(H5FD_t *common, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t bytes,
                           const void *buffer)
{
    (void)common, (void)type, (void)transfer, (void)address, (void)bytes, (void)buffer;
    return -1; /* opened for reading only */
}

static const H5FD_class_t driver_class = {
    .name = "quest-chunks",
    .maxaddr = (haddr_t)1 << 62,
    .fc_degree = H5F_CLOSE_WEAK,
    .open = driver_open,
    .close = driver_close,
    .cmp = driver_compare,
    .get_eoa = driver_get_used,
    .set_eoa = driver_set_used,
    .get_eof = driver_get_end,
    .get_handle = driver_get_handle,
    .read = driver_read,
    .write = driver_write,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hid_t h5_chunks_driver(void)
{
    return H5FDregister(&driver_class);
}

bool h5_chunks_find(hid_t file, hid_t dataset, const hsize_t *start, uint64_t *offset, uint64_t *bytes)
{
    void *handle;
    uint32_t filters;
    char unused; /* nothing is read into it */
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0)
        return false;
    struct driver_file *driver = handle;
    driver->noting = true;
    driver->noted = false;
    bool ok = H5Dread_chunk(dataset, H5P_DEFAULT, start, &filters, &unused) >= 0 && driver->noted;
    driver->noting = false;
    *offset = driver->address;
    *bytes = driver->bytes;
    return ok;
}
