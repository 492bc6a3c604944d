#include "file/crc.h"

enum { POLYNOMIAL = 0xEDB88320 /* RFC 1952, section 8 */ };

static uint32_t table[256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? (uint32_t)POLYNOMIAL ^ (value >> 1) : value >> 1;
        table[i] = value;
    }
}

uint32_t crc_more(uint32_t before, const uint8_t *data, size_t size) {
    if (!table[1]) make_table();
    uint32_t crc = ~before;
    for (size_t i = 0; i < size; i++) crc = table[(crc ^ data[i]) & 0xFF] ^ (crc >> 8);
    return ~crc;
}
