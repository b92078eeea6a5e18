/* Writes TensorBoard's event files: records in TFRecord's framing, scalars and histograms gathered into an event. */
#include "src/log/event_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/log/tensorboard.pb-c.h"

#include "src/base/crc32c.h"
#include "src/files/file_output.h"

enum { TAG_BYTES = 96, SPANS = 30, FRAME_BYTES = 16 };

struct pending {
    Tensorboard__Summary__Value value;
    Tensorboard__HistogramProto histogram;
    char tag[TAG_BYTES];
    double limits[SPANS], counts[SPANS];
};

struct event_file {
    char *path;
    int file;
    struct pending **pending; /* each allocated once and used again: values point into themselves */
    size_t count, capacity;
    bool out_of_memory;
};

/* ---- records: length, its checksum, data, its checksum; all little-endian ---- */

static void put_little_endian(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* Masked, because a checksum over data that holds checksums would be weak (TensorFlow's record_writer). */
static uint32_t masked_crc(const uint8_t *bytes, size_t count)
{
    uint32_t crc = crc32c(bytes, count);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static bool append(struct event_file *file, const uint8_t *record, size_t bytes, struct error *error)
{
    struct stat before;
    bool ok = fstat(file->file, &before) == 0 && file_write_all(file->file, record, bytes);
    if (ok)
        return true;
    error_runtime(error, "%s: cannot be written: %s", file->path, strerror(errno));
    /* A part of an event would end the file for every reader. */
    if (ftruncate(file->file, before.st_size) != 0)
        error_append(error, "; and its end is damaged now");
    return false;
}

static bool write_event(struct event_file *file, const Tensorboard__Event *event, struct error *error)
{
    size_t bytes = tensorboard__event__get_packed_size(event);
    uint8_t *record = malloc(bytes + FRAME_BYTES);
    if (!record)
        return error_runtime(error, "%s: out of memory", file->path);
    put_little_endian(record, bytes, 8);
    put_little_endian(record + 8, masked_crc(record, 8), 4);
    tensorboard__event__pack(event, record + 12);
    put_little_endian(record + 12 + bytes, masked_crc(record + 12, bytes), 4);
    bool ok = append(file, record, bytes + FRAME_BYTES, error);
    free(record);
    return ok;
}

/* ---- files ---- */

char *event_file_path(const char *directory)
{
    size_t prefix = strlen(EVENT_FILE_PREFIX);
    long long newest = 0, now = (long long)time(NULL);
    DIR *listing = opendir(directory);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (strncmp(entry->d_name, EVENT_FILE_PREFIX, prefix) != 0)
            continue;
        long long second = strtoll(entry->d_name + prefix, NULL, 10);
        newest = second > newest ? second : newest;
    }
    if (listing)
        closedir(listing);
    char host[128] = "unknown", *path = NULL;
    gethostname(host, sizeof host - 1);
    /* Two starts within a second, or a clock that was set back. */
    int bytes = asprintf(&path, "%s/" EVENT_FILE_PREFIX "%010lld.%s.%ld", directory, now > newest ? now : newest + 1,
                         host, (long)getpid());
    return bytes < 0 ? NULL : path;
}

static bool write_start(struct event_file *file, uint64_t purge_step, struct error *error)
{
    Tensorboard__Event version = TENSORBOARD__EVENT__INIT, start = TENSORBOARD__EVENT__INIT;
    Tensorboard__SessionLog session = TENSORBOARD__SESSION_LOG__INIT;
    version.wall_time = start.wall_time = (double)time(NULL);
    version.what_case = TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    version.file_version = (char *)"brain.Event:2";
    session.status = TENSORBOARD__SESSION_LOG__SESSION_STATUS__START;
    start.step = (int64_t)purge_step;
    start.what_case = TENSORBOARD__EVENT__WHAT_SESSION_LOG;
    start.session_log = &session;
    /* Also in a run's first file: TensorBoard takes the first START that it meets for a start, later ones for restarts.
     */
    return write_event(file, &version, error) && write_event(file, &start, error);
}

bool event_file_open(struct event_file **out, const char *path, uint64_t purge_step, struct error *error)
{
    struct event_file *file = calloc(1, sizeof *file);
    *out = NULL;
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return error_runtime(error, "%s: out of memory", path);
    }
    file->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    bool ok = file->file >= 0 ? write_start(file, purge_step, error)
                              : error_runtime(error, "%s: cannot be written: %s", path, strerror(errno));
    if (ok) {
        *out = file;
        return true;
    }
    if (file->file >= 0)
        unlink(path);
    event_file_close(file);
    return false;
}

void event_file_close(struct event_file *file)
{
    if (!file)
        return;
    if (file->file >= 0)
        close(file->file);
    for (size_t i = 0; i < file->capacity; i++)
        free(file->pending[i]);
    free(file->pending);
    free(file->path);
    free(file);
}

/* ---- events ---- */

static struct pending *add(struct event_file *file, const char *tag)
{
    if (file->count == file->capacity) {
        struct pending **grown = realloc(file->pending, (file->capacity + 1) * sizeof *grown);
        struct pending *made = malloc(sizeof *made);
        if (grown)
            file->pending = grown;
        if (!grown || !made) {
            free(made);
            file->out_of_memory = true;
            return NULL;
        }
        file->pending[file->capacity++] = made;
    }
    struct pending *pending = file->pending[file->count++];
    tensorboard__summary__value__init(&pending->value);
    snprintf(pending->tag, sizeof pending->tag, "%s", tag);
    pending->value.tag = pending->tag;
    return pending;
}

void event_file_scalar(struct event_file *file, const char *tag, double value)
{
    struct pending *pending = isfinite(value) ? add(file, tag) : NULL;
    if (!pending)
        return;
    pending->value.value_case = TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
    pending->value.simple_value = (float)value;
}

/* Neighbouring spans where nothing lies are joined into one, as TensorFlow does: few heads leave most of them empty. */
static void fill_spans(struct pending *pending, const double *values, size_t count)
{
    Tensorboard__HistogramProto *histogram = &pending->histogram;
    double counts[SPANS] = {0}, width = (histogram->max - histogram->min) / SPANS;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i]))
            counts[width > 0 ? (size_t)fmin(SPANS - 1, (values[i] - histogram->min) / width) : SPANS - 1]++;
    size_t used = 0;
    for (size_t i = 0; i < SPANS; i++) {
        used += used == 0 || counts[i] > 0 || pending->counts[used - 1] > 0;
        pending->counts[used - 1] = counts[i];
        pending->limits[used - 1] = i + 1 == SPANS ? histogram->max : histogram->min + (double)(i + 1) * width;
    }
    histogram->n_bucket_limit = histogram->n_bucket = used;
    histogram->bucket_limit = pending->limits;
    histogram->bucket = pending->counts;
}

void event_file_histogram(struct event_file *file, const char *tag, const double *values, size_t count)
{
    Tensorboard__HistogramProto histogram = TENSORBOARD__HISTOGRAM_PROTO__INIT;
    histogram.min = INFINITY;
    histogram.max = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            continue;
        histogram.min = fmin(histogram.min, values[i]);
        histogram.max = fmax(histogram.max, values[i]);
        histogram.num += 1;
        histogram.sum += values[i];
        histogram.sum_squares += values[i] * values[i];
    }
    struct pending *pending = histogram.num > 0 ? add(file, tag) : NULL;
    if (!pending)
        return;
    pending->histogram = histogram;
    fill_spans(pending, values, count);
    pending->value.value_case = TENSORBOARD__SUMMARY__VALUE__VALUE_HISTO;
    pending->value.histo = &pending->histogram;
}

bool event_file_write(struct event_file *file, uint64_t step, double wall_time, struct error *error)
{
    Tensorboard__Event event = TENSORBOARD__EVENT__INIT;
    Tensorboard__Summary summary = TENSORBOARD__SUMMARY__INIT;
    size_t count = file->count;
    Tensorboard__Summary__Value **values = count > 0 ? malloc(count * sizeof *values) : NULL;
    bool memory = !file->out_of_memory && (count == 0 || values);
    file->count = 0;
    file->out_of_memory = false;
    for (size_t i = 0; values && i < count; i++)
        values[i] = &file->pending[i]->value;
    summary.n_value = count;
    summary.value = values;
    event.wall_time = wall_time;
    event.step = (int64_t)step;
    event.what_case = TENSORBOARD__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    bool ok =
        memory ? count == 0 || write_event(file, &event, error) : error_runtime(error, "%s: out of memory", file->path);
    free(values);
    return ok;
}
