#include "transfer/transfer.h"

#include <stdio.h>
#include <string.h>

#include "transfer/copy.h"
#include "transfer/receive.h"
#include "transfer/send.h"
#include "transfer/unpack.h"

int transfer_run(int argc, char **argv) {
    const char *what = argc ? argv[0] : "";
    if (!strcmp(what, "send") && (argc == 5 || argc == 6)) return transfer_send(argv + 1);
    if (!strcmp(what, "receive") && argc == 4) return transfer_receive(argv + 1);
    if (!strcmp(what, "unpack") && argc == 2) return transfer_unpack(argv[1], true);
    if (!strcmp(what, "unpack-open") && argc == 2) return transfer_unpack(argv[1], false);
    if (!strcmp(what, "empty") && argc == 2) return transfer_empty(argv + 1);
    if (!strcmp(what, "copy") && argc >= 3) return transfer_copy(argc - 1, argv + 1);
    fputs("usage: supervisor transfer send look|raw|tar OFFSET LENGTH PATH [LARGE] |\n"
          "       receive SIZE|- MODE|- PATH | unpack PATH | unpack-open PATH | empty PATH | copy FROM TO...\n",
          stderr);
    return 2;
}
