#include "sudo/front.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sudo/paths.h"

/* The options of sudo 1.8 and 1.9 that have a value, in the same word or the next. */
static const char SHORT_WITH_VALUE[] = "aCcDgpRrTtUu";
static const char *const LONG_WITH_VALUE[] = {
    "auth-type", "chdir", "chroot", "close-from", "command-timeout", "group", "host",
    "login-class", "other-user", "prompt", "role", "type", "user",
};

/* Returns whether a word may mean this long option: getopt_long(3) takes any beginning that fits one name only. */
static bool abbreviates(const char *word, const char *name) { return *word && !strncmp(name, word, strlen(word)); }

static bool takes_next_long(const char *word) {
    if (!strcmp(word, "login")) return false; /* not for --login-class: a whole name comes first */
    for (size_t i = 0; i < sizeof LONG_WITH_VALUE / sizeof *LONG_WITH_VALUE; i++)
        if (abbreviates(word, LONG_WITH_VALUE[i])) return true;
    return false;
}

/* "--st" and longer: "--s" could be --set-home as well. */
static bool is_stdin(const char *word) { return strlen(word) >= 2 && abbreviates(word, "stdin"); }

/* "--non" and longer: "--no" could be --no-update as well. */
static bool is_non_interactive(const char *word) { return strlen(word) >= 3 && abbreviates(word, "non-interactive"); }

/* "--as" and longer: "--a" could be --auth-type as well. */
static bool is_askpass(const char *word) { return strlen(word) >= 2 && abbreviates(word, "askpass"); }

/* Removes each S and n from a word of short options; returns whether the last option has its value in the next word.
   `asks` becomes true when there is an A. */
static bool clean_cluster(char *word, const char *next, bool *asks) {
    char *to = word + 1;
    for (const char *at = to; *at; at++) {
        if (*at == 'S' || *at == 'n') continue;
        *asks = *asks || *at == 'A';
        *to++ = *at;
        if (*at != 'h' && !strchr(SHORT_WITH_VALUE, *at)) continue;
        size_t rest = strlen(at + 1);
        memmove(to, at + 1, rest + 1);
        /* The host of -h is optional, and stands in the next word only after a lone -h. */
        bool alone = to == word + 2;
        return !rest && (*at != 'h' || (alone && next && *next != '-'));
    }
    *to = 0;
    return false;
}

/* sudo takes variables among its options; the first word that is neither is the command. */
static bool is_variable(const char *word) { return *word != '/' && strchr(word, '='); }

bool front_is(const char *path) {
    const char *slash = strrchr(path, '/');
    return !strncmp(slash ? slash + 1 : path, "sudo", 4);
}

int front_run(int argc, char **argv) {
    char **words = calloc((size_t)argc + 2, sizeof *words);
    if (!words) return 1;
    size_t count = 0;
    words[count++] = argc ? argv[0] : "sudo";
    words[count++] = "-A";
    int at = 1;
    bool asks = false;
    while (at < argc && strcmp(argv[at], "--") && ((argv[at][0] == '-' && argv[at][1]) || is_variable(argv[at]))) {
        char *word = argv[at++];
        bool is_long = !strncmp(word, "--", 2), with_next = false;
        /* Without -n: there is a password for who asks, so "may I?" is to be answered yes. */
        if (is_long && (is_stdin(word + 2) || is_non_interactive(word + 2))) continue;
        asks = asks || (is_long && is_askpass(word + 2));
        if (is_long) with_next = takes_next_long(word + 2);
        else if (*word == '-') with_next = clean_cluster(word, argv[at], &asks);
        if (strcmp(word, "-")) words[count++] = word;
        if (with_next && at < argc) words[count++] = argv[at++];
    }
    while (at < argc) words[count++] = argv[at++];
    /* When the caller gave no -A, the -A is ours, and must not run a program that the image names there. */
    if (!asks) unsetenv("SUDO_ASKPASS");
    execv(SUDO_REAL, words);
    fprintf(stderr, "sudo: cannot execute %s: %s\n", SUDO_REAL, strerror(errno));
    free(words);
    return errno == ENOENT ? 127 : 126;
}
