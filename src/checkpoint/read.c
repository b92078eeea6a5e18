/* The header of a checkpoint that may be damaged, foreign or hostile. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/format.h"
#include "src/files/h5_input.h"

/* ---- messages ---- */

bool checkpoint_damaged(const char *path, const char *what, struct error *error)
{
    char reason[160];
    h5_input_reason(reason, sizeof reason);
    return error_runtime(error, "%s: %s cannot be read (%s); the file is damaged", path, what,
                         reason[0] ? reason : "unexpected contents");
}

/* ---- header ---- */

static bool read_whole(const struct h5_input *input, const char *name, uint64_t *value, struct error *error)
{
    int64_t read;
    if (!h5_input_integer(input, name, &read, error))
        return false;
    *value = (uint64_t)read;
    return read >= 0 || error_input(error, "%s: root attribute '%s' is negative", input->path, name);
}

bool checkpoint_check_format(const struct h5_input *input, struct error *error)
{
    char format[64];
    uint64_t version;
    if (!h5_input_string(input, "format", format, sizeof format, error) ||
        !read_whole(input, "version", &version, error))
        return false;
    if (strcmp(format, CHECKPOINT_FORMAT) != 0)
        return error_input(error, "%s: has format '%s', not '" CHECKPOINT_FORMAT "'; name a checkpoint", input->path,
                           format);
    return version == CHECKPOINT_VERSION ||
           error_input(error, "%s: is a checkpoint of version %llu; this program reads version %d", input->path,
                       (unsigned long long)version, CHECKPOINT_VERSION);
}

static bool read_config(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    checkpoint->config = malloc(CHECKPOINT_CONFIG_BYTES_MAX + 1);
    if (!checkpoint->config)
        return error_runtime(error, "%s: out of memory", input->path);
    return h5_input_string(input, "config", checkpoint->config, CHECKPOINT_CONFIG_BYTES_MAX + 1, error);
}

/* Files of before lack them. */
static bool read_class_names(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    if (H5Aexists(input->file, "class_names") == 0)
        return true;
    checkpoint->class_names = malloc(CHECKPOINT_NAMES_BYTES_MAX + 1);
    if (!checkpoint->class_names)
        return error_runtime(error, "%s: out of memory", input->path);
    return h5_input_string(input, "class_names", checkpoint->class_names, CHECKPOINT_NAMES_BYTES_MAX + 1, error);
}

/* An attribute of at most `capacity` real numbers, which files of before may lack: *count is 0 then. */
static bool read_reals(const struct h5_input *input, const char *name, double *values, size_t capacity, size_t *count,
                       struct error *error)
{
    *count = 0;
    if (H5Aexists(input->file, name) == 0)
        return true;
    hid_t attribute = H5Aopen(input->file, name, H5P_DEFAULT);
    hid_t space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    hssize_t found = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    bool ok = found >= 1 && (size_t)found <= capacity && H5Aread(attribute, H5T_NATIVE_DOUBLE, values) >= 0;
    if (ok)
        *count = (size_t)found;
    if (space >= 0)
        H5Sclose(space);
    if (attribute >= 0)
        H5Aclose(attribute);
    char what[64];
    snprintf(what, sizeof what, "attribute %s", name);
    return ok || checkpoint_damaged(input->path, what, error);
}

static bool read_best(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    size_t count;
    return read_reals(input, "best_top1", &checkpoint->best_top1, 1, &count, error);
}

static bool read_diagnosis(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    size_t count;
    if (!read_reals(input, "lr_scale", &checkpoint->lr_scale, 1, &count, error) ||
        !read_reals(input, "gradient_norms", checkpoint->gradient_norms, CHECKPOINT_NORMS_MAX,
                    &checkpoint->gradient_norm_count, error) ||
        (H5Aexists(input->file, "rewinds") != 0 && !read_whole(input, "rewinds", &checkpoint->rewinds, error)))
        return false;
    bool sane = checkpoint->lr_scale > 0 && checkpoint->lr_scale <= 1;
    for (size_t i = 0; i < checkpoint->gradient_norm_count; i++)
        sane = sane && checkpoint->gradient_norms[i] >= 0 && isfinite(checkpoint->gradient_norms[i]);
    return sane ||
           error_input(error, "%s: root attributes 'lr_scale' or 'gradient_norms' are out of range", input->path);
}

static bool read_normalisation(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    size_t count;
    if (H5Aexists(input->file, "mean") == 0 && H5Aexists(input->file, "std") == 0)
        return true;
    if (!h5_input_floats(input, "mean", checkpoint->mean, 4, &checkpoint->channels, error) ||
        !h5_input_floats(input, "std", checkpoint->std, 4, &count, error))
        return false;
    return count == checkpoint->channels ||
           error_input(error, "%s: root attributes 'mean' and 'std' differ in length", input->path);
}

/* Files of before, and runs without one, lack it. */
static bool look_for_average(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    htri_t exists = H5Lexists(input->file, checkpoint_group(CHECKPOINT_AVERAGE), H5P_DEFAULT);
    checkpoint->has_average = exists > 0;
    return exists >= 0 || checkpoint_damaged(input->path, checkpoint_group(CHECKPOINT_AVERAGE), error);
}

static bool read_header(struct checkpoint *checkpoint, const struct h5_input *input, struct error *error)
{
    return checkpoint_check_format(input, error) && read_whole(input, "step", &checkpoint->step, error) &&
           read_whole(input, "epoch", &checkpoint->epoch, error) &&
           read_whole(input, "world_size", &checkpoint->world_size, error) && read_config(checkpoint, input, error) &&
           read_class_names(checkpoint, input, error) && read_best(checkpoint, input, error) &&
           read_normalisation(checkpoint, input, error) && read_diagnosis(checkpoint, input, error) &&
           look_for_average(checkpoint, input, error);
}

bool checkpoint_read_header(struct checkpoint *checkpoint, const char *path, struct error *error)
{
    *checkpoint = (struct checkpoint){.best_top1 = -1, .lr_scale = 1};
    struct h5_input input;
    bool ok = checkpoint_check_seal(path, error) && h5_input_open(&input, path, error);
    if (ok) {
        ok = read_header(checkpoint, &input, error);
        h5_input_close(&input);
    }
    if (!ok) {
        checkpoint_free(checkpoint);
        error->status = ERROR_RUNTIME;
    }
    return ok;
}

void checkpoint_free(struct checkpoint *checkpoint)
{
    free(checkpoint->config);
    free(checkpoint->class_names);
    *checkpoint = (struct checkpoint){.best_top1 = -1, .lr_scale = 1};
}
