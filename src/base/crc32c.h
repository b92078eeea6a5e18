/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), which TFRecord's framing asks for: zlib has only the other CRC-32. */
#ifndef QUEST_BASE_CRC32C_H
#define QUEST_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *bytes, size_t count);

#endif
