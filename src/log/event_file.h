/* TensorBoard's event files: protocol buffers (src/log/tensorboard.proto) in TFRecord's framing, each with masked
 * CRC-32Cs. An event is one write(2), so a TensorBoard that follows the file sees whole ones. */
#ifndef QUEST_LOG_EVENT_FILE_H
#define QUEST_LOG_EVENT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct event_file;

#define EVENT_FILE_PREFIX "events.out.tfevents."

/* A name for a new file in `directory` that sorts after all that are there, which is the order in which TensorBoard
 * reads them. To be freed; NULL: out of memory. */
char *event_file_path(const char *directory);
/* Makes the file `path`. TensorBoard is told to forget what earlier files say of steps from
 * purge_step on.
 * ERROR_RUNTIME, and then there is no file. */
bool event_file_open(struct event_file **file, const char *path, uint64_t purge_step, struct error *error);
void event_file_close(struct event_file *file);

/* Adds to the next event. Numbers that are not finite are left out. */
void event_file_scalar(struct event_file *file, const char *tag, double value);
/* The distribution of `count` numbers: how many of them lie in each of 30 equal spans from the smallest to the largest.
 */
void event_file_histogram(struct event_file *file, const char *tag, const double *values, size_t count);
/* Writes the event, or nothing where nothing was added. wall_time: seconds since 1970. ERROR_RUNTIME: it is left out,
 * and the file ends in a whole event. */
bool event_file_write(struct event_file *file, uint64_t step, double wall_time, struct error *error);

#endif
