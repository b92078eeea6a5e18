/* HDF5 on a file that nobody vouches for. */
#include "src/files/h5_input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/files/h5_chunks.h"

/* HDF5 says only "unable to open file"; the reasons that a user can mend are found here first. */
static bool looks_like_hdf5(const char *path, struct error *error)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char start[8];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_input(error, "%s: %s", path, strerror(errno));
    struct stat status;
    ssize_t got = fstat(file, &status) == 0 && S_ISREG(status.st_mode) ? pread(file, start, sizeof start, 0) : -1;
    close(file);
    if (got < 0)
        return error_input(error, "%s: is not a regular file that can be read", path);
    if ((size_t)got < sizeof start || memcmp(start, signature, sizeof start) != 0)
        return error_input(error, "%s: is not an HDF5 file; name a file that quest-data or quest-train wrote", path);
    return true;
}

bool h5_input_open(struct h5_input *input, const char *path, struct error *error)
{
    *input = (struct h5_input){.path = path, .file = H5I_INVALID_HID, .driver = H5I_INVALID_HID};
    if (!looks_like_hdf5(path, error))
        return false;
    H5Eget_auto2(H5E_DEFAULT, &input->error_printer, &input->error_printer_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    input->driver = h5_chunks_driver();
    if (access >= 0 && input->driver >= 0 && H5Pset_driver(access, input->driver, NULL) >= 0)
        input->file = H5Fopen(path, H5F_ACC_RDONLY, access);
    if (access >= 0)
        H5Pclose(access);
    if (input->file < 0) {
        h5_input_close(input);
        return error_input(error, "%s: the HDF5 file is truncated or damaged; make it or copy it again", path);
    }
    return true;
}

void h5_input_close(struct h5_input *input)
{
    if (input->file >= 0)
        H5Fclose(input->file);
    if (input->driver >= 0)
        H5FDunregister(input->driver);
    input->file = input->driver = H5I_INVALID_HID;
    H5Eset_auto2(H5E_DEFAULT, input->error_printer, input->error_printer_data);
}

/* Opens root attribute `name` of class `class`, with its number of elements. */
static bool open_attribute(const struct h5_input *input, const char *name, H5T_class_t class, const char *expected,
                           hid_t *attribute, size_t *count, struct error *error)
{
    *attribute = H5Aexists(input->file, name) > 0 ? H5Aopen(input->file, name, H5P_DEFAULT) : (hid_t)H5I_INVALID_HID;
    if (*attribute < 0)
        return error_input(error, "%s: has no root attribute '%s'; it is another kind of file", input->path, name);
    hid_t type = H5Aget_type(*attribute), space = H5Aget_space(*attribute);
    hssize_t points = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    bool right = type >= 0 && points > 0 && H5Tget_class(type) == class;
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    if (!right) {
        H5Aclose(*attribute);
        return error_input(error, "%s: root attribute '%s' is not %s", input->path, name, expected);
    }
    *count = (size_t)points;
    return true;
}

bool h5_input_string(const struct h5_input *input, const char *name, char *text, size_t text_bytes, struct error *error)
{
    hid_t attribute;
    size_t count = 0;
    if (!open_attribute(input, name, H5T_STRING, "a string", &attribute, &count, error))
        return false;
    hid_t type = H5Aget_type(attribute);
    bool read = false;
    text[0] = '\0';
    if (count == 1 && H5Tis_variable_str(type) > 0) {
        char *value = NULL;
        read = H5Aread(attribute, type, &value) >= 0 && value != NULL;
        if (read) {
            size_t length = strnlen(value, text_bytes - 1);
            memcpy(text, value, length);
            text[length] = '\0';
            H5free_memory(value);
        }
    } else if (count == 1 && H5Tget_size(type) < text_bytes) {
        memset(text, 0, text_bytes);
        read = H5Aread(attribute, type, text) >= 0;
    }
    H5Tclose(type);
    H5Aclose(attribute);
    return read || error_input(error, "%s: root attribute '%s' cannot be read as a string", input->path, name);
}

bool h5_input_integer(const struct h5_input *input, const char *name, int64_t *value, struct error *error)
{
    hid_t attribute;
    size_t count = 0;
    if (!open_attribute(input, name, H5T_INTEGER, "an integer", &attribute, &count, error))
        return false;
    bool read = count == 1 && H5Aread(attribute, H5T_NATIVE_INT64, value) >= 0;
    H5Aclose(attribute);
    return read || error_input(error, "%s: root attribute '%s' is not one integer", input->path, name);
}

bool h5_input_integers(const struct h5_input *input, const char *name, uint64_t *values, size_t capacity, size_t *count,
                       struct error *error)
{
    hid_t attribute;
    if (!open_attribute(input, name, H5T_INTEGER, "a list of integers", &attribute, count, error))
        return false;
    bool read = *count <= capacity && H5Aread(attribute, H5T_NATIVE_UINT64, values) >= 0;
    H5Aclose(attribute);
    return read ||
           error_input(error, "%s: root attribute '%s' does not hold 1 to %zu integers", input->path, name, capacity);
}

bool h5_input_floats(const struct h5_input *input, const char *name, float *values, size_t capacity, size_t *count,
                     struct error *error)
{
    hid_t attribute;
    if (!open_attribute(input, name, H5T_FLOAT, "a list of numbers", &attribute, count, error))
        return false;
    bool read = *count <= capacity && H5Aread(attribute, H5T_NATIVE_FLOAT, values) >= 0;
    H5Aclose(attribute);
    return read ||
           error_input(error, "%s: root attribute '%s' does not hold 1 to %zu numbers", input->path, name, capacity);
}

bool h5_input_has(const struct h5_input *input, const char *name)
{
    char prefix[64];
    if (strlen(name) >= sizeof prefix)
        return false;
    for (size_t end = 0; end <= strlen(name); end++) {
        if (name[end] != '/' && name[end] != '\0')
            continue;
        memcpy(prefix, name, end);
        prefix[end] = '\0';
        H5L_info_t link;
        if (H5Lexists(input->file, prefix, H5P_DEFAULT) <= 0 ||
            H5Lget_info(input->file, prefix, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
            return false;
    }
    return true;
}

bool h5_input_dataset(const struct h5_input *input, const char *name, int rank, hsize_t *extents, hid_t *dataset,
                      struct error *error)
{
    *dataset = h5_input_has(input, name) ? H5Dopen2(input->file, name, H5P_DEFAULT) : (hid_t)H5I_INVALID_HID;
    if (*dataset < 0)
        return error_input(error, "%s: has no dataset /%s that can be opened", input->path, name);
    hid_t space = H5Dget_space(*dataset);
    bool right = space >= 0 && H5Sis_simple(space) > 0 && H5Sget_simple_extent_ndims(space) == rank &&
                 H5Sget_simple_extent_dims(space, extents, NULL) == rank;
    if (space >= 0)
        H5Sclose(space);
    if (!right) {
        H5Dclose(*dataset);
        return error_input(error, "%s: /%s does not have %d dimension%s", input->path, name, rank,
                           rank == 1 ? "" : "s");
    }
    return true;
}

bool h5_input_read(const struct h5_input *input, hid_t dataset, const char *name, hid_t memory_type, void *values,
                   struct error *error)
{
    hid_t type = H5Dget_type(dataset);
    bool integers = type >= 0 && H5Tget_class(type) == H5T_INTEGER;
    if (type >= 0)
        H5Tclose(type);
    if (!integers)
        return error_input(error, "%s: /%s does not hold integers", input->path, name);
    if (H5Dread(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        return error_input(error, "%s: /%s cannot be read; the file is damaged, import it again", input->path, name);
    return true;
}

/* The strings of an open dataset, each duplicated. `flat` is [count * width] bytes for strings of fixed length, else
 * [count] pointers that HDF5 allocates. */
static bool copy_strings(hid_t dataset, hid_t type, size_t count, char **strings)
{
    bool variable = H5Tis_variable_str(type) > 0;
    size_t width = variable ? sizeof(char *) : H5Tget_size(type);
    char *flat = width > 0 && width <= 4096 ? calloc(count, width) : NULL;
    bool ok = flat && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, flat) >= 0;
    for (size_t i = 0; ok && i < count; i++) {
        const char *text = variable ? ((char **)flat)[i] : flat + i * width;
        strings[i] = variable ? strdup(text ? text : "") : strndup(text, width);
        ok = strings[i] != NULL;
    }
    for (size_t i = 0; flat && variable && i < count; i++)
        H5free_memory(((char **)flat)[i]);
    free(flat);
    return ok;
}

bool h5_input_strings(const struct h5_input *input, const char *name, size_t count, char ***strings,
                      struct error *error)
{
    hid_t dataset;
    hsize_t extent;
    if (!h5_input_dataset(input, name, 1, &extent, &dataset, error))
        return false;
    hid_t type = H5Dget_type(dataset);
    char **list = calloc(count, sizeof *list);
    bool ok = list && type >= 0 && H5Tget_class(type) == H5T_STRING && extent == count &&
              copy_strings(dataset, type, count, list);
    if (type >= 0)
        H5Tclose(type);
    H5Dclose(dataset);
    if (!ok) {
        for (size_t i = 0; list && i < count; i++)
            free(list[i]);
        free(list);
        return error_input(error, "%s: /%s does not hold %zu strings", input->path, name, count);
    }
    *strings = list;
    return true;
}

static herr_t copy_first(unsigned n, const H5E_error2_t *entry, void *reason)
{
    if (n == 0 && entry->desc)
        strncpy(reason, entry->desc, 159);
    return 0;
}

void h5_input_reason(char *text, size_t text_bytes)
{
    char reason[160] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, copy_first, reason);
    snprintf(text, text_bytes, "%s", reason);
}
