#include "file/file.h"

#include <stdio.h>
#include <string.h>

#include "file/list.h"
#include "file/read.h"
#include "file/write.h"

int file_run(int argc, char **argv) {
    const char *what = argc ? argv[0] : "";
    if (!strcmp(what, "read") && argc == 6) return file_read(argv + 1);
    if (!strcmp(what, "fetch") && argc == 3) return file_fetch(argv + 1);
    if (!strcmp(what, "write") && argc == 6) return file_write(argv + 1);
    if (!strcmp(what, "list") && argc >= 7) return file_list(argc - 1, argv + 1);
    fputs("usage: supervisor file read FIRST LINES BYTES WHOLE PATH | fetch BYTES PATH |\n"
          "       write BYTES EXPECTED MODE replace|append PATH |\n"
          "       list SKIP ENTRIES name|time usual|all PATH PATTERN...\n", stderr);
    return 2;
}
