/* The markers of a JPEG file: what they say, and that no damage makes the reader leave its bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "data_loaders/import/jpeg_header.h"

/* SOI, segments and SOS, as far as a reader of headers looks. */
struct stream {
    uint8_t bytes[1024];
    size_t count;
};

static struct stream begin(void)
{
    return (struct stream){{0xFF, 0xD8}, 2};
}

static void add(struct stream *stream, uint8_t marker, const void *contents, size_t count)
{
    uint8_t head[4] = {0xFF, marker, (uint8_t)((count + 2) >> 8), (uint8_t)(count + 2)};
    memcpy(stream->bytes + stream->count, head, sizeof head);
    memcpy(stream->bytes + stream->count + sizeof head, contents, count);
    stream->count += sizeof head + count;
}

static void add_frame(struct stream *stream, uint8_t marker, uint8_t components)
{
    uint8_t frame[] = {8, 0x01, 0x02, 0x03, 0x04, components};
    add(stream, marker, frame, sizeof frame);
    add(stream, 0xDA, "", 0);
}

static void add_exif(struct stream *stream, bool little, uint8_t orientation)
{
    static const char ii[] = "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    static const char mm[] = "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    char exif[sizeof ii - 1];
    memcpy(exif, little ? ii : mm, sizeof exif);
    exif[little ? 24 : 25] = (char)orientation;
    add(stream, 0xE1, exif, sizeof exif);
}

/* A copy on the heap of exactly its size, so that the sanitizer sees one byte too far. */
static bool read_exactly(struct jpeg_header *header, const uint8_t *bytes, size_t count)
{
    uint8_t *copy = malloc(count ? count : 1);
    memcpy(copy, bytes, count);
    bool read = jpeg_header_read(header, copy, count);
    free(copy);
    return read;
}

static void size_and_kind(void **state)
{
    (void)state;
    struct jpeg_header header;
    struct stream stream = begin();
    add_frame(&stream, 0xC0, 3);
    assert_true(read_exactly(&header, stream.bytes, stream.count));
    assert_int_equal(header.height, 0x0102);
    assert_int_equal(header.width, 0x0304);
    assert_int_equal(header.components, 3);
    assert_true(header.upright && !header.progressive && !header.profile);
    stream = begin();
    add(&stream, 0xE2, "ICC_PROFILE\0\1\1", 14);
    add_frame(&stream, 0xC2, 1);
    assert_true(read_exactly(&header, stream.bytes, stream.count));
    assert_true(header.progressive && header.profile && header.components == 1);
}

static void orientation(void **state)
{
    (void)state;
    for (int little = 0; little < 2; little++)
        for (uint8_t value = 0; value < 10; value++) {
            struct jpeg_header header;
            struct stream stream = begin();
            add_exif(&stream, little, value);
            add_frame(&stream, 0xC0, 3);
            assert_true(read_exactly(&header, stream.bytes, stream.count));
            assert_int_equal(header.upright, value <= 1);
        }
}

static void unusual_codings_are_refused(void **state)
{
    (void)state;
    for (uint8_t marker = 0xC3; marker <= 0xCF; marker++) {
        struct jpeg_header header;
        struct stream stream = begin();
        add_frame(&stream, marker, 3);
        assert_false(read_exactly(&header, stream.bytes, stream.count));
    }
}

static void damage_stays_inside(void **state)
{
    (void)state;
    struct jpeg_header header;
    struct stream whole = begin();
    add_exif(&whole, true, 6);
    add(&whole, 0xE2, "ICC_PROFILE\0\1\1", 14);
    add_frame(&whole, 0xC0, 3);
    for (size_t cut = 0; cut + 4 <= whole.count; cut++)
        assert_false(read_exactly(&header, whole.bytes, cut));
    for (size_t at = 0; at < whole.count; at++)
        for (int value = 0; value < 256; value++) {
            struct stream damaged = whole;
            damaged.bytes[at] = (uint8_t)value;
            if (read_exactly(&header, damaged.bytes, damaged.count))
                assert_true(header.height > 0 && header.width > 0 && header.components > 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(size_and_kind), cmocka_unit_test(orientation),
                                       cmocka_unit_test(unusual_codings_are_refused),
                                       cmocka_unit_test(damage_stays_inside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
