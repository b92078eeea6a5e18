/* Walks over the segments of a JPEG file up to its frame header. */
#include "data_loaders/import/jpeg_header.h"

#include <string.h>

enum {
    MARKER_BASELINE = 0xC0,    /* SOF0 */
    MARKER_EXTENDED = 0xC1,    /* SOF1: Huffman coded, one scan after another as in baseline */
    MARKER_PROGRESSIVE = 0xC2, /* SOF2 */
    MARKER_HUFFMAN = 0xC4,
    MARKER_OTHER_CODING = 0xCC,
    MARKER_LAST_FRAME = 0xCF,
    MARKER_IMAGE = 0xD8,
    MARKER_SCAN = 0xDA,
    MARKER_EXIF = 0xE1,
    MARKER_PROFILE = 0xE2
};
enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };

struct bytes {
    const uint8_t *at;
    size_t count;
};

static unsigned number16(const uint8_t *at, bool little)
{
    return little ? at[0] | (unsigned)at[1] << 8 : (unsigned)at[0] << 8 | at[1];
}

static size_t number32(const uint8_t *at, bool little)
{
    size_t first = number16(at, little), second = number16(at + 2, little);
    return little ? second << 16 | first : first << 16 | second;
}

/* A TIFF structure whose first directory either has no orientation or says 1 (or 0, unknown). What cannot be read
 * counts as turned: a reader of EXIF decides then. */
static bool exif_upright(struct bytes tiff)
{
    if (tiff.count < 8 || (memcmp(tiff.at, "II*\0", 4) != 0 && memcmp(tiff.at, "MM\0*", 4) != 0))
        return false;
    bool little = tiff.at[0] == 'I';
    size_t directory = number32(tiff.at + 4, little);
    if (directory > tiff.count - 2)
        return false;
    size_t entries = number16(tiff.at + directory, little);
    if (entries * ENTRY_BYTES > tiff.count - 2 - directory)
        return false;
    for (size_t i = 0; i < entries; i++) {
        const uint8_t *entry = tiff.at + directory + 2 + i * ENTRY_BYTES;
        if (number16(entry, little) == TAG_ORIENTATION &&
            (number16(entry + 2, little) != TYPE_SHORT || number16(entry + 8, little) > 1))
            return false;
    }
    return true;
}

static bool begins(struct bytes segment, const char *name, size_t name_bytes)
{
    return segment.count >= name_bytes && memcmp(segment.at, name, name_bytes) == 0;
}

/* SOFn: precision, height, width, number of components. */
static bool read_frame(struct jpeg_header *header, int marker, struct bytes frame)
{
    if (marker > MARKER_PROGRESSIVE || frame.count < 6 || frame.at[0] != 8)
        return false;
    header->height = number16(frame.at + 1, false);
    header->width = number16(frame.at + 3, false);
    header->components = frame.at[5];
    header->progressive = marker == MARKER_PROGRESSIVE;
    return header->height > 0 && header->width > 0;
}

bool jpeg_header_read(struct jpeg_header *header, const uint8_t *bytes, size_t byte_count)
{
    *header = (struct jpeg_header){.upright = true};
    if (byte_count < 2 || bytes[0] != 0xFF || bytes[1] != MARKER_IMAGE)
        return false;
    size_t at = 2;
    while (at + 4 <= byte_count && bytes[at] == 0xFF) {
        int marker = bytes[at + 1];
        size_t length = number16(bytes + at + 2, false); /* counts its own two bytes */
        if (marker == MARKER_SCAN)
            return header->components > 0;
        if (marker < MARKER_BASELINE || length < 2 || length > byte_count - at - 2)
            return false;
        struct bytes segment = {bytes + at + 4, length - 2};
        bool frame = marker <= MARKER_LAST_FRAME && marker != MARKER_HUFFMAN;
        if (frame && (marker == MARKER_OTHER_CODING || !read_frame(header, marker, segment)))
            return false;
        if (marker == MARKER_EXIF && begins(segment, "Exif\0", 6))
            header->upright = header->upright && exif_upright((struct bytes){segment.at + 6, segment.count - 6});
        if (marker == MARKER_PROFILE && begins(segment, "ICC_PROFILE", 12))
            header->profile = true;
        at += 2 + length;
    }
    return false;
}
