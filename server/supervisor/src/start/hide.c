#include "start/hide.h"

#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

static size_t count(char *const *list) {
    size_t size = 0;
    while (list[size]) size++;
    return size;
}

struct hidden *hide_words(char **argv, char **env) {
    size_t argc = count(argv), envc = count(env);
    struct hidden *h = malloc(sizeof *h + (argc + 1 + envc + 2) * sizeof(char *));
    if (!h) return NULL;
    static char empty[] = "";
    *h = (struct hidden){(char **)(h + 1), (char **)(h + 1) + argc + 1, argc, envc, strlen(argv[argc - 1])};
    memcpy(h->argv, argv, (argc + 1) * sizeof *argv);
    memcpy(h->env, env, envc * sizeof *env);
    h->env[envc] = argv[argc - 1];
    h->env[envc + 1] = NULL;
    h->argv[argc - 1] = empty;
    return h;
}

static bool peek(pid_t child, unsigned long at, unsigned long *value) {
    errno = 0;
    *value = (unsigned long)ptrace(PTRACE_PEEKDATA, child, (void *)at, NULL);
    return !errno;
}

static bool poke(pid_t child, unsigned long at, unsigned long value) {
    return ptrace(PTRACE_POKEDATA, child, (void *)at, (void *)value) == 0;
}

static bool stack_pointer(pid_t child, unsigned long *sp) {
    struct user_regs_struct registers;
    struct iovec whole = {&registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &whole)) return false;
#ifdef __x86_64__
    *sp = registers.rsp;
#else
    *sp = registers.sp;
#endif
    return true;
}

/* On a new program's stack stand argc, the arguments, NULL, the environment, NULL (System V ABI, "process
   initialization"). A script's interpreter has other arguments, and a program of another word size has another layout:
   both show in argc. */
static bool place(pid_t child, const struct hidden *h) {
    unsigned long sp, argc, text, end, word = sizeof word;
    if (!stack_pointer(child, &sp) || !peek(child, sp, &argc) || argc != h->argc) return false;
    unsigned long argv = sp + word, env = argv + (h->argc + 1) * word, entry = env + h->envc * word;
    if (!peek(child, entry, &text) || !text || !peek(child, entry + word, &end) || end) return false;
    /* What stood for it in the environment becomes an empty string. */
    return poke(child, argv + (h->argc - 1) * word, text) && poke(child, entry, text + h->length);
}

/* Wait until the program is there; false: it has ended, which is left for its parent to see. */
static bool wait_for_program(pid_t child) {
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)child, &info, WEXITED | WSTOPPED | WNOWAIT)) {
            if (errno == EINTR) continue;
            return false;
        }
        if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) return false;
        waitid(P_PID, (id_t)child, &info, WSTOPPED);
        if (info.si_status == SIGTRAP) return true;
        /* A signal that came before the program was there. */
        ptrace(PTRACE_CONT, child, NULL, (void *)(long)info.si_status);
    }
}

bool hide_settle(pid_t child, const struct hidden *h) {
    if (!wait_for_program(child)) return true;
    if (place(child, h) && ptrace(PTRACE_DETACH, child, NULL, NULL) == 0) return true;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return false;
}
