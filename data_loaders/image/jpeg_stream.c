/* Decodes a window of a JPEG stream; libjpeg's errors come back by longjmp and become false. */
#include "data_loaders/image/jpeg_stream.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <jpeglib.h>

/* Columns beside the window that are decoded too: smooth upsampling of colour looks at neighbours, and at a picture's
 * edge makes do without. */
enum { MARGIN = 4 };
enum { ROWS = 16 }; /* asked for at a time: the most that libjpeg has ready at once */

struct jpeg_stream {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    jmp_buf give_up;
    char complaint[JMSG_LENGTH_MAX];
    /* of the call that is being carried out */
    const uint8_t *bytes;
    size_t byte_count, channels, denominator;
    size_t width; /* of the scaled picture */
    uint8_t *pixels;
    const struct jpeg_window *window;
};

static struct jpeg_stream *stream_of(j_common_ptr info)
{
    return info->client_data;
}

static void give_up(j_common_ptr info)
{
    struct jpeg_stream *stream = stream_of(info);
    info->err->format_message(info, stream->complaint);
    longjmp(stream->give_up, 1);
}

/* libjpeg mends what it can (a stream cut short, stray bytes) and warns: for us such a picture is damaged. */
static void note_warning(j_common_ptr info, int level)
{
    if (level < 0 && info->err->num_warnings++ == 0)
        info->err->format_message(info, stream_of(info)->complaint);
}

/* Carries out `work`; false where libjpeg gave up or warned. */
static bool guarded(struct jpeg_stream *stream, void (*work)(struct jpeg_stream *stream))
{
    if (setjmp(stream->give_up)) {
        jpeg_abort_decompress(&stream->info);
        return false;
    }
    work(stream);
    return stream->errors.num_warnings == 0;
}

static void create(struct jpeg_stream *stream)
{
    jpeg_create_decompress(&stream->info);
}

struct jpeg_stream *jpeg_stream_open(void)
{
    struct jpeg_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->info.err = jpeg_std_error(&stream->errors);
    stream->errors.error_exit = give_up;
    stream->errors.emit_message = note_warning;
    stream->info.client_data = stream;
    if (!guarded(stream, create)) {
        free(stream);
        return NULL;
    }
    return stream;
}

void jpeg_stream_close(struct jpeg_stream *stream)
{
    if (stream)
        jpeg_destroy_decompress(&stream->info);
    free(stream);
}

static void read_header(struct jpeg_stream *stream)
{
    jpeg_abort_decompress(&stream->info); /* whatever became of the last stream */
    jpeg_mem_src(&stream->info, stream->bytes, stream->byte_count);
    jpeg_read_header(&stream->info, TRUE); /* tables without a picture are an error */
}

bool jpeg_stream_begin(struct jpeg_stream *stream, const uint8_t *bytes, size_t byte_count, size_t *height,
                       size_t *width)
{
    stream->bytes = bytes;
    stream->byte_count = byte_count;
    stream->complaint[0] = '\0';
    stream->errors.num_warnings = 0;
    if (!guarded(stream, read_header))
        return false;
    *height = stream->info.image_height;
    *width = stream->info.image_width;
    return true;
}

bool jpeg_stream_is_cmyk(const struct jpeg_stream *stream)
{
    return stream->info.jpeg_color_space == JCS_CMYK || stream->info.jpeg_color_space == JCS_YCCK;
}

size_t jpeg_stream_scaled(size_t length, size_t denominator)
{
    return (length + denominator - 1) / denominator;
}

/* Leaves out the columns that the window does not need, as far as whole blocks allow. libjpeg-turbo crops pictures
 * whose colour has a quarter of the columns to wrong pixels when it scales them: those are decoded whole. */
static void crop(struct jpeg_stream *stream, size_t *left)
{
    const struct jpeg_window *window = stream->window;
    size_t full = stream->info.output_width, end = window->left + window->width + MARGIN;
    JDIMENSION first = window->left > MARGIN ? (JDIMENSION)(window->left - MARGIN) : 0;
    JDIMENSION count = (JDIMENSION)(end < full ? end - first : full - first);
    *left = 0;
    if (stream->info.max_h_samp_factor > 2 || count >= full)
        return;
    jpeg_crop_scanline(&stream->info, &first, &count);
    *left = first;
}

static void read_rows(struct jpeg_stream *stream, size_t end, size_t left)
{
    struct jpeg_decompress_struct *info = &stream->info;
    while (info->output_scanline < end) {
        JSAMPROW rows[ROWS];
        size_t first = info->output_scanline, count = end - first < ROWS ? end - first : ROWS;
        for (size_t i = 0; i < count; i++)
            rows[i] = stream->pixels + ((first + i) * stream->width + left) * stream->channels;
        jpeg_read_scanlines(info, rows, (JDIMENSION)count);
    }
}

static void decode(struct jpeg_stream *stream)
{
    struct jpeg_decompress_struct *info = &stream->info;
    const struct jpeg_window *window = stream->window;
    info->out_color_space = stream->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    info->scale_num = 1;
    info->scale_denom = (unsigned)stream->denominator;
    jpeg_start_decompress(info);
    stream->width = info->output_width;
    size_t left, height = info->output_height, end = window->top + window->height;
    crop(stream, &left);
    if (window->top > 0)
        jpeg_skip_scanlines(info, (JDIMENSION)window->top);
    read_rows(stream, end, left);
    /* Skipping to the end would look at nothing more, so damage in the window that shows only behind it would pass. */
    if (end + 1 < height)
        jpeg_skip_scanlines(info, (JDIMENSION)(height - 1 - end));
    read_rows(stream, height, left);
    jpeg_finish_decompress(info);
}

bool jpeg_stream_decode(struct jpeg_stream *stream, uint8_t *pixels, size_t denominator, size_t channels,
                        const struct jpeg_window *window)
{
    stream->pixels = pixels;
    stream->denominator = denominator;
    stream->channels = channels;
    stream->window = window;
    return guarded(stream, decode);
}

const char *jpeg_stream_complaint(const struct jpeg_stream *stream)
{
    return stream->complaint;
}
