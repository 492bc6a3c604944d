/* Stands where commands look for sudo, and becomes the image's own: with -A, and without -S, which goes not with it. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sudo.h"

/* Of sudo 1.8 and 1.9: options with a value, in this word or the next. */
static const char SHORT_WITH_VALUE[] = "aCcDgpRrTtUu";
static const char *const LONG_WITH_VALUE[] = {
    "auth-type", "chdir", "chroot", "close-from", "command-timeout", "group", "host",
    "login-class", "other-user", "prompt", "role", "type", "user",
};

/* Whether a long option may be this one: getopt_long(3) takes any beginning that fits one name only. */
static bool abbreviates(const char *word, const char *name) { return *word && !strncmp(name, word, strlen(word)); }

static bool takes_next_long(const char *word) {
    for (size_t i = 0; i < sizeof LONG_WITH_VALUE / sizeof *LONG_WITH_VALUE; i++)
        if (abbreviates(word, LONG_WITH_VALUE[i])) return true;
    return false;
}

/* "--st" and longer: "--s" could be --set-home as well. */
static bool is_stdin(const char *word) { return strlen(word) >= 2 && abbreviates(word, "stdin"); }

/* Take each S out of a word of short options; whether the last of them has its value in the next word. */
static bool clean_cluster(char *word, const char *next) {
    char *to = word + 1;
    for (const char *at = to; *at; at++) {
        if (*at == 'S') continue;
        *to++ = *at;
        if (*at != 'h' && !strchr(SHORT_WITH_VALUE, *at)) continue;
        size_t rest = strlen(at + 1);
        memmove(to, at + 1, rest + 1);
        /* A host may be left out, and stands in the next word only after a lone -h. */
        bool alone = to == word + 2;
        return !rest && (*at != 'h' || (alone && next && *next != '-'));
    }
    *to = 0;
    return false;
}

/* sudo takes variables among its options: the first word that is neither is the command. */
static bool is_variable(const char *word) { return *word != '/' && strchr(word, '='); }

int front_run(int argc, char **argv) {
    char **words = calloc((size_t)argc + 2, sizeof *words);
    if (!words) return 1;
    size_t count = 0;
    words[count++] = argc ? argv[0] : "sudo";
    words[count++] = "-A";
    int at = 1;
    while (at < argc && strcmp(argv[at], "--") && ((argv[at][0] == '-' && argv[at][1]) || is_variable(argv[at]))) {
        char *word = argv[at++];
        bool is_long = !strncmp(word, "--", 2), with_next = false;
        if (is_long && is_stdin(word + 2)) continue;
        if (is_long) with_next = takes_next_long(word + 2);
        else if (*word == '-') with_next = clean_cluster(word, argv[at]);
        if (strcmp(word, "-")) words[count++] = word;
        if (with_next && at < argc) words[count++] = argv[at++];
    }
    while (at < argc) words[count++] = argv[at++];
    execv(SUDO_REAL, words);
    fprintf(stderr, "sudo: cannot execute %s: %s\n", SUDO_REAL, strerror(errno));
    free(words);
    return errno == ENOENT ? 127 : 126;
}
