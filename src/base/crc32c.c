/* CRC-32C, four bits at a time. */
#include "src/base/crc32c.h"

/* Four bits at a time: a table that can be checked by eye (entry i is i divided by the reflected polynomial
 * 0x82f63b78); a logged step is some kilobytes. */
static const uint32_t nibbles[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t crc32c(const void *bytes, size_t count)
{
    uint32_t crc = 0xffffffffu;
    const uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++) {
        crc ^= at[i];
        crc = (crc >> 4) ^ nibbles[crc & 15];
        crc = (crc >> 4) ^ nibbles[crc & 15];
    }
    return ~crc;
}
