/* Contiguous and chunked storage as runs of bytes. */
#include "data_loaders/format/placement.h"

#include <stdlib.h>

#include "src/files/h5_chunks.h"

static bool is_dense(const struct bytes_in_file *bytes, hid_t creation, struct error *error)
{
    hid_t type = H5Dget_type(bytes->dataset);
    bool of_bytes =
        type >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 1 && H5Tget_sign(type) == H5T_SGN_NONE;
    if (type >= 0)
        H5Tclose(type);
    if (!of_bytes)
        return error_input(error, "%s: /%s is not of type uint8", bytes->path, bytes->name);
    H5D_layout_t layout = H5Pget_layout(creation);
    if (H5Pget_nfilters(creation) != 0 || H5Pget_external_count(creation) != 0 ||
        (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED))
        return error_input(error,
                           "%s: /%s is compressed or stored so that it cannot be read directly; convert it with: "
                           "h5repack -f NONE -l %s:CONTI IN.h5 OUT.h5",
                           bytes->path, bytes->name, bytes->name);
    return true;
}

static bool measure(const struct bytes_in_file *bytes, size_t *total_bytes, struct error *error)
{
    *total_bytes = 1;
    for (int i = 0; i < bytes->rank; i++) {
        /* Nothing is compressed, so what the header promises must be there: this also bounds all memory taken. */
        if (bytes->extents[i] == 0 || bytes->extents[i] > bytes->file_bytes / *total_bytes)
            return error_input(error, "%s: /%s is empty or larger than the file; it is truncated, copy it again",
                               bytes->path, bytes->name);
        *total_bytes *= bytes->extents[i];
    }
    return true;
}

static bool cut_into_pieces(struct placement *placement, const struct bytes_in_file *bytes, hid_t creation,
                            size_t item_bytes, struct error *error)
{
    const hsize_t *extents = bytes->extents;
    if (H5Pget_layout(creation) == H5D_CONTIGUOUS) {
        *placement = (struct placement){1, extents[0] * item_bytes, NULL};
        return true;
    }
    hsize_t chunk[4] = {0};
    bool whole = H5Pget_chunk(creation, 4, chunk) == bytes->rank;
    for (int i = 1; i < bytes->rank; i++)
        whole = whole && chunk[i] == extents[i];
    if (!whole || chunk[0] == 0 || chunk[0] > SIZE_MAX / item_bytes)
        return error_input(error,
                           "%s: /%s has chunks that cut images into parts; convert it with: "
                           "h5repack -l %s:CONTI IN.h5 OUT.h5",
                           bytes->path, bytes->name, bytes->name);
    *placement = (struct placement){(extents[0] + chunk[0] - 1) / chunk[0], chunk[0] * item_bytes, NULL};
    return true;
}

static bool find_offset(uint64_t *offset, const struct bytes_in_file *bytes, bool chunked, hsize_t first_item,
                        size_t used_bytes, struct error *error)
{
    uint64_t address = HADDR_UNDEF, stored;
    hsize_t start[4] = {first_item, 0, 0, 0};
    if (!chunked)
        address = H5Dget_offset(bytes->dataset);
    else if (!h5_chunks_find(bytes->file, bytes->dataset, start, &address, &stored))
        address = HADDR_UNDEF;
    *offset = address;
    if (address == HADDR_UNDEF)
        return error_input(error, "%s: /%s[%llu] was never written; the file is incomplete, import it again",
                           bytes->path, bytes->name, (unsigned long long)first_item);
    if (address > bytes->file_bytes || used_bytes > bytes->file_bytes - address)
        return error_input(error, "%s: /%s[%llu] lies past the end of the file; it is truncated, copy it again",
                           bytes->path, bytes->name, (unsigned long long)first_item);
    return true;
}

static bool find_offsets(struct placement *placement, const struct bytes_in_file *bytes, bool chunked,
                         size_t total_bytes, struct error *error)
{
    size_t items_a_piece = placement->piece_bytes / (total_bytes / bytes->extents[0]);
    placement->offsets = malloc(placement->pieces * sizeof *placement->offsets);
    if (!placement->offsets)
        return error_runtime(error, "%s: no memory for the places of %zu chunks", bytes->path, placement->pieces);
    for (size_t piece = 0; piece < placement->pieces; piece++) {
        size_t used_bytes = total_bytes - piece * placement->piece_bytes;
        if (used_bytes > placement->piece_bytes)
            used_bytes = placement->piece_bytes;
        if (!find_offset(&placement->offsets[piece], bytes, chunked, piece * items_a_piece, used_bytes, error)) {
            free(placement->offsets);
            placement->offsets = NULL;
            return false;
        }
    }
    return true;
}

bool placement_find(struct placement *placement, const struct bytes_in_file *bytes, struct error *error)
{
    size_t total_bytes;
    *placement = (struct placement){0};
    if (!measure(bytes, &total_bytes, error))
        return false;
    hid_t creation = H5Dget_create_plist(bytes->dataset);
    if (creation < 0)
        return error_input(error, "%s: /%s cannot be read; the file is damaged", bytes->path, bytes->name);
    bool ok = is_dense(bytes, creation, error) &&
              cut_into_pieces(placement, bytes, creation, total_bytes / bytes->extents[0], error);
    bool chunked = ok && H5Pget_layout(creation) == H5D_CHUNKED;
    H5Pclose(creation);
    return ok && find_offsets(placement, bytes, chunked, total_bytes, error);
}
