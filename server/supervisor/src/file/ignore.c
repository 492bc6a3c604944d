#include "file/ignore.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TEXT_MAX = 64 << 10, /* bytes of a .gitignore; the rest of a longer one is not read */
    NAME_SIZE = 256,
    DEEP_MAX = 3,        /* `**` parts of one rule: each multiplies the ways to match */
    ABOVE_MAX = 16,      /* folders above the listed one */
};

static const char *const heavy[] = {
    ".git", ".hg", ".svn", "node_modules", "bower_components", "__pycache__", ".venv", ".tox", ".nox", ".mypy_cache",
    ".pytest_cache", ".ruff_cache", ".hypothesis", ".gradle", ".terraform", ".next", ".nuxt", ".parcel-cache",
    ".turbo", ".cache",
};

static bool is_deep(const char *part, size_t size) { return size == 2 && part[0] == '*' && part[1] == '*'; }

/* Matches a rule with slashes part by part, from the beginning of both. */
static bool matches_path(const char *rule, const char *path) {
    char part[NAME_SIZE], name[NAME_SIZE];
    size_t rule_size = strcspn(rule, "/"), size = strcspn(path, "/");
    if (is_deep(rule, rule_size)) {
        if (!rule[rule_size]) return *path;
        for (; path; path = strchr(path, '/') ? strchr(path, '/') + 1 : NULL)
            if (matches_path(rule + rule_size + 1, path)) return true;
        return false;
    }
    if (rule_size >= sizeof part || size >= sizeof name) return false;
    memcpy(part, rule, rule_size);
    memcpy(name, path, size);
    part[rule_size] = name[size] = 0;
    if (fnmatch(part, name, 0)) return false;
    if (!rule[rule_size] || !path[size]) return rule[rule_size] == path[size];
    return matches_path(rule + rule_size + 1, path + size + 1);
}

static void add_rule(struct ignore *i, char *line) {
    size_t size = strlen(line);
    if (size && line[size - 1] == '\r') line[--size] = 0;
    while (size && line[size - 1] == ' ' && (size < 2 || line[size - 2] != '\\')) line[--size] = 0;
    unsigned deep = 0;
    for (const char *at = line; (at = strstr(at, "**")); at += 2) deep++;
    if (!size || *line == '#' || deep > DEEP_MAX || i->count == sizeof i->rules / sizeof *i->rules) return;
    i->rules[i->count++] = line;
}

void ignore_read(struct ignore *i, int folder, const struct ignore *above, size_t base, const char *prefix) {
    struct stat info;
    i->above = above;
    i->count = 0;
    i->base = base;
    i->prefix = prefix;
    i->text = NULL;
    int fd = openat(folder, ".gitignore", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    i->text = fstat(fd, &info) || !S_ISREG(info.st_mode) ? NULL : malloc(TEXT_MAX + 1);
    ssize_t size = i->text ? read(fd, i->text, TEXT_MAX) : 0;
    close(fd);
    if (size <= 0) return;
    i->text[size] = 0;
    for (char *rest = i->text, *line; (line = strsep(&rest, "\n"));) add_rule(i, line);
}

void ignore_free(struct ignore *i) { free(i->text); }

/* Returns the path of the listed folder below one that is `up` folders above it, with a slash at its end. */
static char *below(const char *whole, unsigned up) {
    const char *at = whole + strlen(whole);
    for (unsigned i = 0; i < up; i++)
        while (at > whole && *--at != '/') continue;
    if (*at == '/') at++;
    size_t size = strlen(at);
    char *made = malloc(size + 2);
    if (made) memcpy(made, at, size), memcpy(made + size, "/", 2);
    return made;
}

const struct ignore *ignore_above(const char *path) {
    const struct ignore *found = NULL;
    struct ignore *folders[ABOVE_MAX];
    unsigned count = 0;
    char *whole = realpath(path, NULL);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* The listed folder may be the repository itself: then nothing above it counts. */
    for (unsigned level = 1; whole && fd >= 0 && level <= ABOVE_MAX && faccessat(fd, ".git", F_OK, 0); level++) {
        size_t depth = 0;
        for (const char *at = whole; *at; at++) depth += *at == '/' && at[1];
        if (level > depth) break;
        int next = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
        if (fd < 0 || !(folders[count] = malloc(sizeof **folders))) break;
        ignore_read(folders[count++], fd, NULL, 0, below(whole, level));
    }
    if (fd >= 0) close(fd);
    free(whole);
    while (count) {
        folders[--count]->above = found;
        found = folders[count];
    }
    return found;
}

/* Returns 1 when a rule leaves the entry out, -1 when it brings it back, and 0 when it says nothing about it. */
static int judge(const char *rule, const char *path, const char *name, bool is_folder) {
    char kept[PATH_MAX];
    bool back = *rule == '!';
    rule += back;
    size_t size = strlen(rule);
    if (!size || size >= sizeof kept) return 0;
    memcpy(kept, rule, size + 1);
    if (kept[size - 1] == '/' && !is_folder) return 0;
    if (kept[size - 1] == '/') kept[size - 1] = 0;
    char *slash = strchr(kept, '/');
    bool found = slash ? matches_path(kept + (slash == kept), path) : !fnmatch(kept, name, 0);
    return found ? (back ? -1 : 1) : 0;
}

static bool is_heavy(const char *name) {
    for (size_t i = 0; i < sizeof heavy / sizeof *heavy; i++)
        if (!strcmp(name, heavy[i])) return true;
    return false;
}

bool ignore_has(const struct ignore *i, const char *path, const char *name, bool is_folder) {
    if (is_folder && is_heavy(name)) return true;
    for (char joined[2 * PATH_MAX]; i; i = i->above) {
        size_t before = i->prefix ? strlen(i->prefix) : 0;
        if (before >= PATH_MAX) continue;
        if (before) memcpy(joined, i->prefix, before);
        strcpy(joined + before, path + i->base);
        for (unsigned at = i->count; at--;) {
            int said = judge(i->rules[at], joined, name, is_folder);
            if (said) return said > 0;
        }
    }
    return false;
}
