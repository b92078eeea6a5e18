/* Writes logits to an HDF5 file. */
#include "src/measure/logits_file.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool write_dataset(hid_t file, const float *logits, size_t images, size_t classes)
{
    hsize_t shape[2] = {images, classes};
    hid_t space = H5Screate_simple(2, shape, NULL);
    hid_t set =
        space < 0 ? -1 : H5Dcreate2(file, "logits", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = set >= 0 && H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, logits) >= 0;
    if (set >= 0)
        ok = H5Dclose(set) >= 0 && ok;
    if (space >= 0)
        ok = H5Sclose(space) >= 0 && ok;
    return ok;
}

bool logits_file_write(const char *path, const float *logits, size_t images, size_t classes, struct error *error)
{
    char temporary[1100];
    snprintf(temporary, sizeof temporary, "%s.partial", path);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our message is the one to show */
    hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0)
        return error_input(error, "%s: cannot be created (is the directory there and writable?)", path);
    bool ok = write_dataset(file, logits, images, classes);
    ok = H5Fclose(file) >= 0 && ok;
    if (ok && rename(temporary, path) == 0)
        return true;
    unlink(temporary);
    return error_runtime(error, "%s: the logits could not be written: %s", path,
                         errno ? strerror(errno) : "disk full?");
}
