/* The supervisor: `init` is PID 1 of a sandbox, `connect` bridges to it, `file` is run in it. By other names
   it is the front of sudo and the program that sudo asks for the password. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bridge.h"
#include "file/file.h"
#include "init/init.h"
#include "sudo/askpass.h"
#include "sudo/front.h"

static int usage(void) {
    fputs("usage: supervisor init --socket PATH [--claim MS] | connect --socket PATH | file ... | version\n", stderr);
    return 2;
}

static const char *own_name(int argc, char **argv) {
    const char *path = argc > 0 ? argv[0] : "", *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int main(int argc, char **argv) {
    char self[PATH_MAX] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) > 0 && front_is(self)) return front_run(argc, argv);
    if (!strcmp(own_name(argc, argv), "askpass")) return askpass_run();
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "file")) return file_run(argc - 2, argv + 2);
    if (!strcmp(what, "version") && argc == 2) return printf("supervisor 3\n") < 0;
    bool claim = argc == 6 && !strcmp(what, "init") && !strcmp(argv[4], "--claim");
    if ((argc != 4 && !claim) || strcmp(argv[2], "--socket")) return usage();
    /* This comes before we hold a secret: processes of our user must neither trace us nor read our memory. */
    prctl(PR_SET_DUMPABLE, 0);
    if (!strcmp(what, "init")) return init_run(argv[3], claim ? strtoul(argv[5], NULL, 10) : CLAIM_MS);
    if (!strcmp(what, "connect")) return bridge_run(argv[3]);
    return usage();
}
