/* The supervisor: `init` is PID 1 of a sandbox, `connect` bridges to it, `file` and `transfer` run in it, `look` says
   what is mounted there, `facts` what holds for whoever runs it, `environment` what the image sets, `reach` whether the
   cluster can be reached, `as` transfers as another user, `apart` so beside
   the channel and without that user's capabilities, and `own` gives folders of the image to the user. By
   other names it is the front of sudo and the program that sudo asks for a password. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "apart.h"
#include "bridge.h"
#include "facts.h"
#include "file/file.h"
#include "init/init.h"
#include "init/modes.h"
#include "inside.h"
#include "look.h"
#include "own.h"
#include "sudo/askpass.h"
#include "sudo/front.h"
#include "transfer/transfer.h"

static int usage(void) {
    fputs("usage: supervisor init --socket PATH [--claim MS] [--own-ipc] [--stays] [--group GID]\n"
          "                       [--mode MODE:PATH]... [--shared PATH]\n"
          "       supervisor connect --socket PATH | file ... | transfer ... | look PATH... | facts PATH...\n"
          "       supervisor own SECONDS USER PATH... | as USER FOLDER transfer ... | apart USER FOLDER TRANSFER... |\n"
          "       environment | reach | version\n",
          stderr);
    return 2;
}

static const char *own_name(int argc, char **argv) {
    const char *path = argc > 0 ? argv[0] : "", *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* `words` begin with the socket's path. */
static int init(int count, char **words) {
    struct init_options options = {.path = words[0], .claim_ms = CLAIM_MS};
    for (int i = 1; i < count; i++) {
        const char *value = i + 1 < count ? words[i + 1] : NULL;
        if (!strcmp(words[i], "--stays")) {
            options.stays = true;
            continue;
        }
        if (!strcmp(words[i], "--own-ipc")) {
            options.owns_ipc = true;
            continue;
        }
        if (!value) return usage();
        if (!strcmp(words[i], "--claim")) options.claim_ms = strtoul(value, NULL, 10);
        else if (!strcmp(words[i], "--group")) options.group = (gid_t)strtoul(value, NULL, 10);
        else if (!strcmp(words[i], "--shared")) group_set(value, options.group);
        else if (strcmp(words[i], "--mode") || !mode_set(value)) return usage();
        i++;
    }
    int code = init_run(&options);
    if (code != INIT_AGAIN) return code;
    execv("/proc/self/exe", words - 3);
    return 1;
}

int main(int argc, char **argv) {
    char self[PATH_MAX] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) > 0 && front_is(self)) return front_run(argc, argv);
    if (!strcmp(own_name(argc, argv), "askpass")) return askpass_run();
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "file")) return file_run(argc - 2, argv + 2);
    if (!strcmp(what, "transfer")) return transfer_run(argc - 2, argv + 2);
    if (!strcmp(what, "apart")) return apart_run(argc - 2, argv + 2);
    if (!strcmp(what, "look")) return look_run(argc - 2, argv + 2);
    if (!strcmp(what, "own")) return own_run(argc - 2, argv + 2);
    if (!strcmp(what, "facts")) return facts_run(argc - 2, argv + 2);
    if (!strcmp(what, "environment") && argc == 2) return inside_environment();
    if (!strcmp(what, "reach") && argc == 2) return inside_reach();
    if (!strcmp(what, "as") && argc > 5 && !strcmp(argv[4], "transfer"))
        return inside_become(argv[2], argv[3]) ? transfer_run(argc - 5, argv + 5) : 1;
    if (!strcmp(what, "version") && argc == 2) return printf("supervisor 3\n") < 0;
    if (argc < 4 || strcmp(argv[2], "--socket")) return usage();
    /* This comes before we hold a secret: processes of our user must neither trace us nor read our memory. */
    prctl(PR_SET_DUMPABLE, 0);
    if (!strcmp(what, "init")) return init(argc - 3, argv + 3);
    if (!strcmp(what, "connect") && argc == 4) return bridge_run(argv[3]);
    return usage();
}
