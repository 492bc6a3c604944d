#include "transfer/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/outlet.h"

static void put_octal(char *to, size_t room, uint64_t value) {
    snprintf(to, room, "%0*llo", (int)room - 1, (unsigned long long)value);
}

static uint64_t octal_limit(size_t room) { return (uint64_t)1 << (3 * (room - 1)); }

static void put_sum(struct tar_header *h) {
    unsigned sum = 0;
    memset(h->sum, ' ', sizeof h->sum);
    for (size_t i = 0; i < sizeof *h; i++) sum += ((unsigned char *)h)[i];
    snprintf(h->sum, sizeof h->sum, "%06o", sum);
}

static void copy_text(char *to, size_t room, const char *text) {
    size_t size = strlen(text);
    memcpy(to, text, size < room ? size : room);
}

static bool put_header(const char *name, char type, const char *link, const struct entry *e, uint64_t size) {
    struct tar_header h = {.type = type, .magic = "ustar", .version = {'0', '0'}};
    copy_text(h.name, sizeof h.name, name);
    copy_text(h.link, sizeof h.link, link);
    put_octal(h.mode, sizeof h.mode, e->mode & 07777);
    put_octal(h.uid, sizeof h.uid, 0);
    put_octal(h.gid, sizeof h.gid, 0);
    put_octal(h.size, sizeof h.size, size < octal_limit(sizeof h.size) ? size : 0);
    uint64_t mtime = e->mtime > 0 ? (uint64_t)e->mtime : 0;
    put_octal(h.mtime, sizeof h.mtime, mtime < octal_limit(sizeof h.mtime) ? mtime : 0);
    put_sum(&h);
    return outlet_write(&h, sizeof h);
}

/* Its length counts its own digits. */
size_t tar_record(char *to, size_t at, const char *key, const char *value) {
    size_t size = strlen(key) + strlen(value) + 3, digits = 1;
    for (size_t total = size + 1; snprintf(NULL, 0, "%zu", total) != (int)digits; total = size + digits) digits++;
    return at + (size_t)sprintf(to + at, "%zu %s=%s\n", size + digits, key, value);
}

static size_t add_number(char *to, size_t at, const char *key, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return tar_record(to, at, key, text);
}

bool tar_write(const struct entry *e) {
    static char pax[2 * PATH_MAX + 512];
    size_t size = 0;
    if (e->sparse) {
        size = add_number(pax, size, "GNU.sparse.major", 1);
        size = add_number(pax, size, "GNU.sparse.minor", 0);
        size = tar_record(pax, size, "GNU.sparse.name", e->name);
        size = add_number(pax, size, "GNU.sparse.realsize", e->real_size);
    } else if (strlen(e->name) > 100) {
        size = tar_record(pax, size, "path", e->name);
    }
    if (strlen(e->link) > 100) size = tar_record(pax, size, "linkpath", e->link);
    if (e->size >= octal_limit(12)) size = add_number(pax, size, "size", e->size);
    if (size) {
        const struct entry own = {.mode = 0644};
        if (!put_header("PaxHeaders/entry", 'x', "", &own, size) || !outlet_write(pax, size)) return false;
        if (!outlet_zeros((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK)) return false;
    }
    return put_header(e->name, e->type, e->link, e, e->size);
}

bool tar_end(void) { return outlet_zeros((size_t)2 * TAR_BLOCK) && outlet_flush(); }

static bool get_number(const char *from, size_t room, uint64_t *value) {
    *value = 0;
    if (*from & 0x80) { /* GNU: base 256 */
        for (size_t i = 0; i < room; i++) {
            unsigned byte = (unsigned char)from[i] & (i ? 0xff : 0x7f);
            if (*value >> 55) return false;
            *value = *value << 8 | byte;
        }
        return true;
    }
    size_t i = 0;
    while (i < room && from[i] == ' ') i++;
    for (; i < room && from[i] >= '0' && from[i] <= '7'; i++) *value = *value << 3 | (uint64_t)(from[i] - '0');
    return i == room || !from[i] || from[i] == ' ';
}

static bool sum_matches(const struct tar_header *h) {
    uint64_t told;
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *h; i++) {
        bool own = i >= offsetof(struct tar_header, sum) && i < offsetof(struct tar_header, sum) + sizeof h->sum;
        sum += own ? ' ' : ((const unsigned char *)h)[i];
    }
    return get_number(h->sum, sizeof h->sum, &told) && told == sum;
}

const char *tar_parse(const struct tar_header *h, struct entry *e, unsigned known) {
    uint64_t size, mode, mtime;
    if (!sum_matches(h)) return "it is not a tar archive, or damaged";
    if (!get_number(h->size, sizeof h->size, &size) || !get_number(h->mode, sizeof h->mode, &mode))
        return "a number in it is damaged";
    e->type = h->type;
    e->mode = (uint32_t)mode;
    if (!(known & KNOWN_SIZE)) e->size = size;
    bool has_time = get_number(h->mtime, sizeof h->mtime, &mtime);
    if (!(known & KNOWN_MTIME)) e->mtime = has_time ? (int64_t)(mtime & INT64_MAX) : 0;
    bool posix = !memcmp(h->magic, "ustar", 6) && *h->prefix;
    if (!(known & KNOWN_NAME) && posix) snprintf(e->name, sizeof e->name, "%.155s/%.100s", h->prefix, h->name);
    else if (!(known & KNOWN_NAME)) snprintf(e->name, sizeof e->name, "%.100s", h->name);
    if (!(known & KNOWN_LINK)) snprintf(e->link, sizeof e->link, "%.100s", h->link);
    return NULL;
}

static const char *take_record(const char *key, const char *value, struct entry *e, unsigned *known) {
    bool is_name = !strcmp(key, "path") || !strcmp(key, "GNU.sparse.name"), is_link = !strcmp(key, "linkpath");
    if ((is_name || is_link) && strlen(value) >= PATH_MAX) return "a name in it is too long";
    if (is_name) {
        if (*key == 'G' || !e->sparse || !(*known & KNOWN_NAME)) strcpy(e->name, value);
        *known |= KNOWN_NAME;
    } else if (is_link) {
        strcpy(e->link, value);
        *known |= KNOWN_LINK;
    } else if (!strcmp(key, "size")) {
        e->size = strtoull(value, NULL, 10);
        *known |= KNOWN_SIZE;
    } else if (!strcmp(key, "mtime")) {
        e->mtime = strtoll(value, NULL, 10);
        *known |= KNOWN_MTIME;
    } else if (!strcmp(key, "GNU.sparse.major")) {
        e->sparse = true;
        if (strcmp(value, "1")) return "it has a sparse file of an old format; pack it with --sparse-version=1.0";
    } else if (!strcmp(key, "GNU.sparse.realsize")) {
        e->real_size = strtoull(value, NULL, 10);
    } else if (!strcmp(key, "GNU.sparse.map") || !strcmp(key, "GNU.sparse.numblocks")) {
        return "it has a sparse file of an old format; pack it with --sparse-version=1.0";
    }
    return NULL;
}

const char *tar_parse_pax(char *data, size_t size, struct entry *e, unsigned *known) {
    for (char *at = data, *end = data + size; at < end;) {
        char *space;
        size_t length = strtoul(at, &space, 10);
        bool fits = *space == ' ' && length > (size_t)(space - at) + 1 && length <= (size_t)(end - at);
        if (!fits || at[length - 1] != '\n') return "an extended header in it is damaged";
        at[length - 1] = 0;
        char *value = memchr(space, '=', (size_t)(at + length - space));
        if (!value || strlen(value) != (size_t)(at + length - 1 - value)) return "an extended header in it is damaged";
        *value = 0;
        const char *wrong = take_record(space + 1, value + 1, e, known);
        if (wrong) return wrong;
        at += length;
    }
    return NULL;
}
