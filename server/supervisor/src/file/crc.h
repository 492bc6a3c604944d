/* CRC-32 as zlib has it: with the size it tells whether a file is still what the server has read. */
#ifndef FILE_CRC_H
#define FILE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Returns the checksum of `before` and then these bytes; 0 is the checksum of nothing. */
uint32_t crc_more(uint32_t before, const uint8_t *data, size_t size);

#endif
