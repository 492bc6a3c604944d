/* Feeds a harness a folder of inputs and many deterministic mutations of each: `fuzz FOLDER COUNT`. A sanitizer, or a
   check of the harness, ends it when the code under test does what it must not. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "fuzz.h"

enum { INPUT_MAX = 1 << 16, CHANGES_MAX = 8 };

static uint64_t state;

/* xorshift: the same mutations on every machine. */
static uint32_t next_random(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

/* A copy of the exact size: a sanitizer sees one byte that is read past its end. */
static void run(const uint8_t *bytes, size_t size) {
    uint8_t *data = malloc(size ? size : 1);
    fuzz_check(data != NULL);
    memcpy(data, bytes, size);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static size_t mutate(uint8_t *data, size_t size) {
    static const uint32_t telling[] = {0, 1, 4, 5, 0x7f, 0x80, 0xff, 0xffff, 0x10000, 0x100000, 0x7fffffff, 0xffffffff};
    for (uint32_t i = 0, count = 1 + next_random(CHANGES_MAX); i < count && size; i++) {
        uint32_t at = next_random((uint32_t)size), what = next_random(5);
        if (what == 0) data[at] ^= (uint8_t)(1U << next_random(8));
        else if (what == 1) data[at] = (uint8_t)next_random(256);
        else if (what == 2 && size >= 4 && at <= size - 4) memcpy(data + at, &telling[next_random(12)], 4);
        else if (what == 3) size = at;
        else if (size < INPUT_MAX) {
            memmove(data + at + 1, data + at, size - at);
            size++;
        }
    }
    return size;
}

static void fuzz(const uint8_t *input, size_t size, unsigned long count) {
    static uint8_t data[INPUT_MAX];
    state = 0x9e3779b97f4a7c15;
    run(input, size);
    for (unsigned long i = 0; i < count; i++) {
        memcpy(data, input, size);
        run(data, mutate(data, size));
    }
}

int main(int argc, char **argv) {
    static uint8_t input[INPUT_MAX];
    char path[4096];
    DIR *folder = argc == 3 ? opendir(argv[1]) : NULL;
    if (!folder) return fputs("usage: fuzz FOLDER COUNT\n", stderr), 2;
    unsigned long files = 0;
    for (struct dirent *name; (name = readdir(folder)); files += name->d_name[0] != '.') {
        if (name->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], name->d_name);
        FILE *file = fopen(path, "rb");
        if (!file) return perror(path), 1;
        size_t size = fread(input, 1, sizeof input, file);
        fclose(file);
        fuzz(input, size, strtoul(argv[2], NULL, 10));
    }
    closedir(folder);
    printf("%lu inputs, %lu taken, %lu refused\n", files, fuzz_taken, fuzz_refused);
    return 0;
}
