/* JPEG files whose pixels can be taken as they are, through libturbojpeg: an import spends thirty times as long an
 * image in libvips. The pixels are the same, because both decode with libjpeg-turbo. One converter a thread. */
#ifndef QUEST_DATA_LOADERS_IMPORT_JPEG_CONVERT_H
#define QUEST_DATA_LOADERS_IMPORT_JPEG_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/image/pixels.h"
#include "src/base/error.h"

struct jpeg_converter;

bool jpeg_converter_open(struct jpeg_converter **converter, struct error *error);
void jpeg_converter_close(struct jpeg_converter *converter);

/* A baseline or progressive stream as RGB pixels, valid until the next call. false: not whole, or odd in another way
 * (CMYK, warnings of the decoder): the loader would refuse it too. */
bool jpeg_decode(struct jpeg_converter *converter, const uint8_t *stream, size_t stream_bytes, struct pixels *pixels);
/* The same image in one scan, without loss and without markers. Caller frees with free; NULL where it cannot be done.
 */
uint8_t *jpeg_to_baseline(struct jpeg_converter *converter, const uint8_t *stream, size_t stream_bytes,
                          size_t *baseline_bytes);

#endif
