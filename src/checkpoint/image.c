/* A checkpoint as an HDF5 file in memory (HDF5's core driver without a backing file).
 *
 * HDF5 itself never writes to the disk here: when a disk is full, H5Fclose fails half-way, keeps the file open and
 * tries again when the process ends, so that neither the error nor the half file is ours to handle. write(2) of a
 * finished image fails cleanly. The price is one more copy of what is saved (12 bytes a parameter while a checkpoint is
 * written: 69 MB for vit_tiny, 1.0 GB for vit_base), in memory of rank 0's host. */
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

#include "src/checkpoint/format.h"
#include "src/files/h5_input.h"

enum {
    CHUNK_BYTES = 1 << 20,     /* what one checksum covers */
    INCREMENT_BYTES = 1 << 20, /* by which the image grows */
    ROOT_ATTRIBUTES_MAX = 32,  /* kept in the checksummed header of the root group */
    END_ADDRESS_OFFSET = 28,   /* of the end of file in a version 2 or 3 superblock (HDF5 File Format 3.0, II.A) */
    END_ADDRESS_END = END_ADDRESS_OFFSET + 8,
};

/* ---- the driver's buffer, which outlives the file ---- */

static void *image_allocate(size_t bytes, H5FD_file_image_op_t operation, void *owner)
{
    (void)operation;
    struct checkpoint_image *image = owner;
    return image->bytes = malloc(bytes);
}

static void *image_copy(void *to, const void *from, size_t bytes, H5FD_file_image_op_t operation, void *owner)
{
    (void)operation;
    (void)owner;
    return memcpy(to, from, bytes);
}

static void *image_grow(void *memory, size_t bytes, H5FD_file_image_op_t operation, void *owner)
{
    (void)operation;
    struct checkpoint_image *image = owner;
    void *grown = realloc(memory, bytes);
    if (grown) {
        image->bytes = grown;
        image->byte_count = bytes;
    }
    return grown;
}

static herr_t image_keep(void *memory, H5FD_file_image_op_t operation, void *owner)
{
    (void)memory;
    (void)operation;
    (void)owner;
    return 0;
}

static void *owner_copy(void *owner)
{
    return owner;
}

static herr_t owner_release(void *owner)
{
    (void)owner;
    return 0;
}

/* ---- property lists ---- */

/* No object keeps its times (H5Pset_obj_track_times): the same state gives the same bytes. */

static hid_t access_properties(struct checkpoint_image *image)
{
    H5FD_file_image_callbacks_t callbacks = {image_allocate, image_copy,    image_grow, image_keep,
                                             owner_copy,     owner_release, image};
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    if (list >= 0 && H5Pset_fapl_core(list, INCREMENT_BYTES, false) >= 0 &&
        H5Pset_file_image_callbacks(list, &callbacks) >= 0 &&
        H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0)
        return list;
    H5Pclose(list);
    return H5I_INVALID_HID;
}

static hid_t file_properties(void)
{
    hid_t list = H5Pcreate(H5P_FILE_CREATE);
    if (list >= 0 && H5Pset_attr_phase_change(list, ROOT_ATTRIBUTES_MAX, 0) >= 0 &&
        H5Pset_obj_track_times(list, false) >= 0)
        return list;
    H5Pclose(list);
    return H5I_INVALID_HID;
}

/* Chunks of whole rows of the first dimensions, at most CHUNK_BYTES where a row is not larger. */
static hid_t dataset_properties(const struct checkpoint_tensor *tensor, const hsize_t *extents)
{
    hsize_t chunk[4];
    size_t bytes = sizeof(float);
    for (size_t i = tensor->rank; i-- > 0;) {
        hsize_t fitting = CHUNK_BYTES / bytes;
        chunk[i] = fitting == 0 ? 1 : fitting < extents[i] ? fitting : extents[i];
        bytes *= chunk[i];
    }
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (list >= 0 && H5Pset_chunk(list, (int)tensor->rank, chunk) >= 0 && H5Pset_fletcher32(list) >= 0 &&
        H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) >= 0 && H5Pset_obj_track_times(list, false) >= 0)
        return list;
    H5Pclose(list);
    return H5I_INVALID_HID;
}

static hid_t create_group(hid_t file, const char *name)
{
    hid_t list = H5Pcreate(H5P_GROUP_CREATE);
    hid_t group = list >= 0 && H5Pset_obj_track_times(list, false) >= 0
                      ? H5Gcreate2(file, name, H5P_DEFAULT, list, H5P_DEFAULT)
                      : H5I_INVALID_HID;
    H5Pclose(list);
    return group;
}

/* ---- contents ---- */

static bool write_scalar(hid_t file, const char *name, hid_t file_type, hid_t memory_type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = space >= 0 ? H5Acreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    bool ok = attribute >= 0 && H5Awrite(attribute, memory_type, value) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static bool write_whole(hid_t file, const char *name, uint64_t value)
{
    return write_scalar(file, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

static bool write_text(hid_t file, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool ok = type >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
              write_scalar(file, name, type, type, &text);
    if (type >= 0)
        H5Tclose(type);
    return ok;
}

/* Lists are one-dimensional even with one number: a reader indexes them. */
static bool write_list(hid_t file, const char *name, hid_t file_type, hid_t memory_type, size_t count,
                       const void *values)
{
    hsize_t extent = count;
    hid_t space = H5Screate_simple(1, &extent, NULL);
    hid_t attribute = space >= 0 ? H5Acreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
    bool ok = attribute >= 0 && H5Awrite(attribute, memory_type, values) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static bool write_floats(hid_t file, const char *name, const float *values, size_t count)
{
    return write_list(file, name, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, count, values);
}

static bool write_real(hid_t file, const char *name, double value)
{
    return write_scalar(file, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

static bool has_class_names(const struct checkpoint *checkpoint)
{
    return checkpoint->class_names && strlen(checkpoint->class_names) <= CHECKPOINT_NAMES_BYTES_MAX;
}

static bool write_header(hid_t file, const struct checkpoint *checkpoint)
{
    return write_text(file, "format", CHECKPOINT_FORMAT) && write_whole(file, "version", CHECKPOINT_VERSION) &&
           write_whole(file, "step", checkpoint->step) && write_whole(file, "epoch", checkpoint->epoch) &&
           write_whole(file, "world_size", checkpoint->world_size) && write_text(file, "config", checkpoint->config) &&
           (!has_class_names(checkpoint) || write_text(file, "class_names", checkpoint->class_names)) &&
           write_real(file, "best_top1", checkpoint->best_top1) && write_real(file, "lr_scale", checkpoint->lr_scale) &&
           write_whole(file, "rewinds", checkpoint->rewinds) &&
           (checkpoint->gradient_norm_count == 0 ||
            write_list(file, "gradient_norms", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, checkpoint->gradient_norm_count,
                       checkpoint->gradient_norms)) &&
           (checkpoint->channels == 0 || (write_floats(file, "mean", checkpoint->mean, checkpoint->channels) &&
                                          write_floats(file, "std", checkpoint->std, checkpoint->channels)));
}

static bool write_tensor(hid_t group, const struct checkpoint_tensor *tensor, const float *values)
{
    hsize_t extents[4];
    for (size_t i = 0; i < tensor->rank; i++)
        extents[i] = tensor->shape[i];
    hid_t space = H5Screate_simple((int)tensor->rank, extents, NULL);
    hid_t properties = dataset_properties(tensor, extents);
    hid_t dataset = space >= 0 && properties >= 0
                        ? H5Dcreate2(group, tensor->name, H5T_IEEE_F32LE, space, H5P_DEFAULT, properties, H5P_DEFAULT)
                        : -1;
    bool ok = dataset >= 0 && H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (dataset >= 0)
        ok = H5Dclose(dataset) >= 0 && ok;
    H5Pclose(properties);
    H5Sclose(space);
    return ok;
}

static bool write_part(hid_t file, const struct checkpoint *checkpoint, enum checkpoint_part part)
{
    hid_t group = create_group(file, checkpoint_group(part));
    bool ok = group >= 0;
    for (size_t i = 0; ok && i < checkpoint->tensor_count; i++) {
        const float *values = checkpoint_part_of(&checkpoint->tensors[i], part);
        ok = !values || write_tensor(group, &checkpoint->tensors[i], values);
    }
    if (group >= 0)
        ok = H5Gclose(group) >= 0 && ok;
    return ok;
}

bool checkpoint_has_moments(const struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        if (checkpoint->tensors[i].m && checkpoint->tensors[i].v)
            return true;
    return false;
}

bool checkpoint_wants_average(const struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        if (checkpoint->has_average && checkpoint->tensors[i].average)
            return true;
    return false;
}

static bool write_contents(hid_t file, const struct checkpoint *checkpoint)
{
    if (!write_header(file, checkpoint) || !write_part(file, checkpoint, CHECKPOINT_PARAMETER))
        return false;
    if (checkpoint_has_moments(checkpoint)) {
        hid_t group = create_group(file, "/adamw");
        if (group < 0 || H5Gclose(group) < 0 || !write_part(file, checkpoint, CHECKPOINT_M) ||
            !write_part(file, checkpoint, CHECKPOINT_V))
            return false;
    }
    return !checkpoint_wants_average(checkpoint) || write_part(file, checkpoint, CHECKPOINT_AVERAGE);
}

/* The driver's buffer is longer than the file; the superblock says where the file ends. */
static bool cut_to_size(struct checkpoint_image *image)
{
    const unsigned char *bytes = image->bytes;
    uint64_t end = 0;
    for (size_t i = END_ADDRESS_END; image->byte_count >= END_ADDRESS_END && i-- > END_ADDRESS_OFFSET;)
        end = end << 8 | bytes[i];
    bool ok = end >= END_ADDRESS_END && end <= image->byte_count;
    image->byte_count = (size_t)end;
    return ok;
}

bool checkpoint_image_build(struct checkpoint_image *image, const struct checkpoint *checkpoint, struct error *error)
{
    *image = (struct checkpoint_image){0};
    if (strlen(checkpoint->config) > CHECKPOINT_CONFIG_BYTES_MAX)
        return error_runtime(error, "the configuration has more than %d bytes", CHECKPOINT_CONFIG_BYTES_MAX);
    H5E_auto2_t printer;
    void *printer_data;
    H5Eget_auto2(H5E_DEFAULT, &printer, &printer_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = access_properties(image), creation = file_properties();
    hid_t file = access >= 0 && creation >= 0 ? H5Fcreate("checkpoint", H5F_ACC_TRUNC, creation, access) : -1;
    bool ok = file >= 0 && write_contents(file, checkpoint);
    if (file >= 0)
        ok = H5Fclose(file) >= 0 && ok;
    ok = ok && cut_to_size(image);
    char reason[256] = "";
    if (!ok)
        h5_input_reason(reason, sizeof reason);
    H5Pclose(creation);
    H5Pclose(access);
    H5Eset_auto2(H5E_DEFAULT, printer, printer_data);
    if (ok)
        return true;
    free(image->bytes);
    *image = (struct checkpoint_image){0};
    return error_runtime(error, "the checkpoint cannot be made in memory: %s", reason[0] ? reason : "out of memory");
}
