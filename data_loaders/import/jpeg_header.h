/* What the markers at the front of a JPEG file say, without decoding: whether its pixels can be taken as they are. */
#ifndef QUEST_DATA_LOADERS_IMPORT_JPEG_HEADER_H
#define QUEST_DATA_LOADERS_IMPORT_JPEG_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jpeg_header {
    size_t height, width;
    int components;   /* 1 grayscale, 3 colour, 4 CMYK */
    bool progressive; /* several scans: decodes several times as slowly */
    bool upright;     /* no EXIF tag says that it is to be turned */
    bool profile;     /* carries an ICC colour profile */
};

/* false: no JPEG file, or one with markers that are damaged or out of the ordinary (not 8 bits a sample, lossless,
 * arithmetic coding). Reads nothing past bytes[byte_count). */
bool jpeg_header_read(struct jpeg_header *header, const uint8_t *bytes, size_t byte_count);

#endif
