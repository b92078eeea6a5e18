/* What is asked of libvips: any image file as 8-bit sRGB without transparency, upright by EXIF. */
#ifndef QUEST_DATA_LOADERS_IMPORT_VIPS_IMAGE_H
#define QUEST_DATA_LOADERS_IMPORT_VIPS_IMAGE_H

#include <stdbool.h>
#include <stdio.h>
#include <vips/vips.h>

#include "src/base/error.h"

struct vips_file {
    const char *path, *name; /* the file's, and what libvips is given for it */
    char descriptor_path[32];
    bool plain; /* a JPEG that is upright and whose numbers are its colours */
};

/* Starts libvips for one thread an image, without its cache; ends a thread's part of it. */
bool vips_image_begin(const char *program, struct error *error);
void vips_image_thread_end(void);

/* `file` is `path`, open, and stays so as long as `named` is used. */
void vips_file_name(struct vips_file *named, const char *path, FILE *file);
/* The same for a file without a path, which messages call `path`. */
void vips_file_unnamed(struct vips_file *named, const char *path, FILE *file);
/* NULL with libvips' reason in its buffer. The caller unrefs. */
VipsImage *vips_file_square(const struct vips_file *file, size_t size);   /* the centre, resized to size x size */
VipsImage *vips_file_upright(const struct vips_file *file, size_t limit); /* shorter side shrunk to `limit`; 0 = none */
/* Takes the reason out of libvips' buffer, which all threads share, into the error; false. */
bool vips_file_failed(const struct vips_file *file, struct error *error);

#endif
