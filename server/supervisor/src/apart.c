#include "apart.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "start/child.h"
#include "start/user.h"
#include "transfer/outlet.h"
#include "transfer/transfer.h"

/* Our standard error reaches the server's log. */
static int fail(const char *what, const char *why) {
    fprintf(stderr, "supervisor: %s: %s\n", what, why);
    return 1;
}

int apart_run(int argc, char **argv) {
    if (argc < 3) return 2;
    struct identity who;
    const char *fault = user_resolve(argv[0], &who);
    if (fault) return fail("cannot become the user", fault);
    offer_to_oom();
    if (!become(&who, 0)) return fail("cannot become the user", strerror(errno));
    if (chdir(argv[1])) return fail("cannot enter the folder", strerror(errno));
    outlet_set_free();
    return transfer_run(argc - 2, argv + 2);
}
