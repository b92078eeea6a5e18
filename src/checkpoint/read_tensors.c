/* The tensors of a checkpoint that may be damaged, foreign or hostile. HDF5 checks its checksums; what it would do on a
 * file's word (follow links to other files, load filter plugins, allocate huge chunks) is refused before the data is
 * touched. */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/format.h"
#include "src/files/h5_input.h"

enum { CHUNK_BYTES_MAX = 64 << 20 };

static void describe_shape(char *text, size_t text_bytes, size_t rank, const hsize_t *extents)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < rank && used < text_bytes; i++)
        used +=
            (size_t)snprintf(text + used, text_bytes - used, "%s%llu", i ? ", " : "", (unsigned long long)extents[i]);
}

/* Storage inside the file, by filters that are built in, in chunks of a sane size. */
static bool plain_storage(hid_t dataset)
{
    hid_t list = H5Dget_create_plist(dataset);
    if (list < 0)
        return false;
    H5D_layout_t layout = H5Pget_layout(list);
    bool ok = layout != H5D_VIRTUAL && layout >= 0 && H5Pget_external_count(list) == 0;
    int filters = ok ? H5Pget_nfilters(list) : -1;
    for (int i = 0; i < filters; i++) {
        unsigned flags;
        size_t values = 0;
        H5Z_filter_t filter = H5Pget_filter2(list, (unsigned)i, &flags, &values, NULL, 0, NULL, NULL);
        ok = ok && (filter == H5Z_FILTER_FLETCHER32 || filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE);
    }
    hsize_t chunk[H5S_MAX_RANK], numbers = 1;
    int rank = ok && layout == H5D_CHUNKED ? H5Pget_chunk(list, H5S_MAX_RANK, chunk) : 0;
    for (int i = 0; i < rank && numbers <= CHUNK_BYTES_MAX; i++)
        numbers *= chunk[i];
    H5Pclose(list);
    return ok && filters >= 0 && rank >= 0 && numbers <= CHUNK_BYTES_MAX / sizeof(double);
}

static bool check_shape(const char *path, const char *name, hid_t dataset, const struct checkpoint_tensor *tensor,
                        struct error *error)
{
    hsize_t extents[H5S_MAX_RANK], expected[4];
    hid_t space = H5Dget_space(dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_dims(space, extents, NULL) : -1;
    if (space >= 0)
        H5Sclose(space);
    if (rank < 0)
        return checkpoint_damaged(path, name, error);
    bool same = (size_t)rank == tensor->rank;
    for (size_t i = 0; i < tensor->rank; i++) {
        expected[i] = tensor->shape[i];
        same = same && extents[i] == expected[i];
    }
    if (same)
        return true;
    char found[128], wanted[128];
    describe_shape(found, sizeof found, (size_t)rank, extents);
    describe_shape(wanted, sizeof wanted, tensor->rank, expected);
    return error_input(error,
                       "%s: %s has shape [%s], the model's is [%s]; the configuration must be the one it was "
                       "trained with",
                       path, name, found, wanted);
}

static bool check_type(const char *path, const char *name, hid_t dataset, struct error *error)
{
    hid_t type = H5Dget_type(dataset);
    bool right = type >= 0 && H5Tget_class(type) == H5T_FLOAT && H5Tget_size(type) <= sizeof(double);
    if (type >= 0)
        H5Tclose(type);
    if (!right)
        return error_input(error, "%s: %s does not hold floating-point numbers of at most 64 bits", path, name);
    return plain_storage(dataset) || error_input(error,
                                                 "%s: %s is stored with filters, links or chunks that a "
                                                 "checkpoint does not have",
                                                 path, name);
}

static bool read_tensor(const char *path, hid_t group, const char *group_name, const struct checkpoint_tensor *tensor,
                        float *values, struct error *error)
{
    char name[256];
    snprintf(name, sizeof name, "%s/%s", group_name, tensor->name);
    htri_t exists = H5Lexists(group, tensor->name, H5P_DEFAULT);
    H5L_info_t link;
    if (exists == 0)
        return error_input(error, "%s: has no %s, which the model needs", path, name);
    if (exists < 0 || H5Lget_info(group, tensor->name, &link, H5P_DEFAULT) < 0)
        return checkpoint_damaged(path, name, error);
    if (link.type != H5L_TYPE_HARD)
        return error_input(error, "%s: %s is a link, not a dataset", path, name);
    hid_t dataset = H5Dopen2(group, tensor->name, H5P_DEFAULT);
    if (dataset < 0)
        return checkpoint_damaged(path, name, error);
    bool ok = check_shape(path, name, dataset, tensor, error) && check_type(path, name, dataset, error);
    if (ok && H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        ok = checkpoint_damaged(path, name, error);
    H5Dclose(dataset);
    return ok;
}

struct search {
    const struct checkpoint *checkpoint;
    char extra[200];
};

static herr_t find_extra(hid_t group, const char *name, const H5L_info_t *info, void *argument)
{
    (void)group;
    (void)info;
    struct search *search = argument;
    for (size_t i = 0; i < search->checkpoint->tensor_count; i++)
        if (strcmp(name, search->checkpoint->tensors[i].name) == 0)
            return 0;
    snprintf(search->extra, sizeof search->extra, "%s", name);
    return 1;
}

/* One group's tensors into their places; with `scratch` (as large as the largest) they are compared with them. */
static bool read_part(const struct h5_input *input, const struct checkpoint *checkpoint, enum checkpoint_part part,
                      float *scratch, struct error *error)
{
    const char *name = checkpoint_group(part);
    bool parent = part == CHECKPOINT_PARAMETER || part == CHECKPOINT_AVERAGE ||
                  H5Lexists(input->file, "/adamw", H5P_DEFAULT) != 0;
    if (!parent || H5Lexists(input->file, name, H5P_DEFAULT) == 0)
        return error_input(error, "%s: has no group %s", input->path, name);
    hid_t group = H5Gopen2(input->file, name, H5P_DEFAULT);
    if (group < 0)
        return checkpoint_damaged(input->path, name, error);
    bool ok = true;
    for (size_t i = 0; ok && i < checkpoint->tensor_count; i++) {
        const struct checkpoint_tensor *tensor = &checkpoint->tensors[i];
        float *values = checkpoint_part_of(tensor, part);
        if (!values)
            continue;
        ok = read_tensor(input->path, group, name, tensor, scratch ? scratch : values, error);
        if (ok && scratch && memcmp(scratch, values, checkpoint_tensor_count(tensor) * sizeof *values) != 0)
            ok = error_runtime(error, "%s: %s/%s differs from memory", input->path, name, tensor->name);
    }
    struct search search = {.checkpoint = checkpoint};
    herr_t found = ok ? H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, find_extra, &search) : 0;
    if (found < 0)
        ok = checkpoint_damaged(input->path, name, error);
    else if (found > 0)
        ok = error_input(error, "%s: holds %s/%.150s, which the model does not have", input->path, name, search.extra);
    H5Gclose(group);
    return ok;
}

/* Past the seal and what HDF5 would do on a file's word. */
static bool open_checked(struct h5_input *input, const char *path, struct error *error)
{
    if (!checkpoint_check_seal(path, error) || !h5_input_open(input, path, error)) {
        error->status = ERROR_RUNTIME;
        return false;
    }
    H5PLset_loading_state(0); /* no filter plugins on a file's word */
    return true;
}

static bool read_parts(const char *path, const struct checkpoint *checkpoint, bool moments, bool require_format,
                       float *scratch, struct error *error)
{
    struct h5_input input;
    if (!open_checked(&input, path, error))
        return false;
    bool ok = !require_format || checkpoint_check_format(&input, error);
    const bool wanted[CHECKPOINT_PARTS] = {true, moments, moments, checkpoint_wants_average(checkpoint)};
    for (int part = 0; ok && part < CHECKPOINT_PARTS; part++)
        ok = !wanted[part] || read_part(&input, checkpoint, (enum checkpoint_part)part, scratch, error);
    h5_input_close(&input);
    return ok;
}

bool checkpoint_read_tensors(const char *path, const struct checkpoint *checkpoint, bool with_optimiser,
                             bool require_format, struct error *error)
{
    bool ok = read_parts(path, checkpoint, with_optimiser, require_format, NULL, error);
    if (!ok && !require_format)
        error->status = ERROR_INPUT; /* the user named this file; there is no other to fall back to */
    return ok;
}

/* What is missing, a link or damaged stays without a shape: checkpoint_read_tensors says so. */
static void read_shape(hid_t group, struct checkpoint_tensor *tensor)
{
    H5L_info_t link;
    hsize_t extents[H5S_MAX_RANK];
    tensor->rank = 0;
    if (H5Lexists(group, tensor->name, H5P_DEFAULT) <= 0 || H5Lget_info(group, tensor->name, &link, H5P_DEFAULT) < 0 ||
        link.type != H5L_TYPE_HARD)
        return;
    hid_t dataset = H5Dopen2(group, tensor->name, H5P_DEFAULT), space = dataset >= 0 ? H5Dget_space(dataset) : -1;
    int rank = space >= 0 ? H5Sget_simple_extent_dims(space, extents, NULL) : 0;
    for (int i = 0; rank <= 4 && i < rank; i++)
        tensor->shape[i] = extents[i];
    tensor->rank = rank > 0 && rank <= 4 ? (size_t)rank : 0;
    if (space >= 0)
        H5Sclose(space);
    if (dataset >= 0)
        H5Dclose(dataset);
}

bool checkpoint_read_shapes(const char *path, struct checkpoint_tensor *tensors, size_t count, struct error *error)
{
    struct h5_input input;
    if (!open_checked(&input, path, error)) {
        error->status = ERROR_INPUT;
        return false;
    }
    const char *name = checkpoint_group(CHECKPOINT_PARAMETER);
    bool exists = H5Lexists(input.file, name, H5P_DEFAULT) > 0;
    hid_t group = exists ? H5Gopen2(input.file, name, H5P_DEFAULT) : -1;
    for (size_t i = 0; i < count; i++)
        if (group >= 0)
            read_shape(group, &tensors[i]);
        else
            tensors[i].rank = 0;
    if (group >= 0)
        H5Gclose(group);
    h5_input_close(&input);
    return true;
}

bool checkpoint_compare(const char *path, const struct checkpoint *checkpoint, struct error *error)
{
    struct checkpoint header;
    if (!checkpoint_read_header(&header, path, error))
        return false;
    bool named = header.class_names && checkpoint->class_names; /* too long names are not written */
    bool same = (!named || strcmp(header.class_names, checkpoint->class_names) == 0) &&
                header.step == checkpoint->step && header.epoch == checkpoint->epoch &&
                header.channels == checkpoint->channels && strcmp(header.config, checkpoint->config) == 0 &&
                header.lr_scale == checkpoint->lr_scale && header.rewinds == checkpoint->rewinds &&
                header.gradient_norm_count == checkpoint->gradient_norm_count &&
                header.has_average == checkpoint_wants_average(checkpoint) &&
                memcmp(header.gradient_norms, checkpoint->gradient_norms,
                       header.gradient_norm_count * sizeof *header.gradient_norms) == 0;
    checkpoint_free(&header);
    if (!same)
        return error_runtime(error, "%s: the header differs from memory", path);
    size_t largest = 1;
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        size_t count = checkpoint_tensor_count(&checkpoint->tensors[i]);
        largest = count > largest ? count : largest;
    }
    float *scratch = malloc(largest * sizeof *scratch);
    if (!scratch)
        return error_runtime(error, "%s: out of memory for reading it back", path);
    bool ok = read_parts(path, checkpoint, checkpoint_has_moments(checkpoint), true, scratch, error);
    free(scratch);
    return ok;
}
