/* Prints the system calls that the seccomp filter around it lets through, without one of them being made.

   A child puts a filter of its own on top, which gives every call with a certain sixth argument to its tracer. Of
   several filters the strictest verdict holds, and "trace" is laxer than every refusal: so the tracer sees a call
   exactly when the filter below allows it, and kills the child before it is made. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MARK = 0x7a5c11, CALLS = 600, FAMILIES = 64, PROTOCOLS = 32, BITS = 64, NETLINK = 16, RAW = 3, STREAM = 1 };

/* How a call is made: as the machine's own programs do, as 32-bit ones of x86 do, and as those of x32 do. */
enum abi { NATIVE, I386, X32 };

static const struct calls {
    enum abi abi;
    const char *name;
    long socket, socketpair, socketcall, clone, personality;
} all[] = {
    {NATIVE, "native", SYS_socket, SYS_socketpair, -1, SYS_clone, SYS_personality},
#ifdef __x86_64__
    {I386, "i386", 359, 360, 102, 120, 136},
    {X32, "x32", SYS_socket, SYS_socketpair, -1, SYS_clone, SYS_personality},
#endif
};
static unsigned long asked;

static _Noreturn void fail(const char *what) {
    perror(what);
    exit(1);
}

static void make(enum abi abi, long nr, long a, long b, long c) {
#ifdef __x86_64__
    if (abi == I386) {
        __asm__ volatile("mov %%rbp, %%r12; mov %[mark], %%ebp; int $0x80; mov %%r12, %%rbp"
                         : "+a"(nr)
                         : "b"(a), "c"(b), "d"(c), "S"(0L), "D"(0L), [mark] "i"(MARK)
                         : "memory", "r8", "r9", "r10", "r11", "r12");
        return;
    }
    if (abi == X32) nr |= 0x40000000;
#endif
    syscall(nr, a, b, c, 0L, 0L, (long)MARK);
}

static _Noreturn void child(enum abi abi, long nr, long a, long b, long c) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("no_new_privs");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("seccomp");
    raise(SIGSTOP);
    make(abi, nr, a, b, c);
    syscall(SYS_exit_group, 0L, 0L, 0L, 0L, 0L, 0L); /* without the mark, which a register may still hold */
    _exit(0);
}

/* Wait for a stop or the end; whether the tracer was given the marked call. */
static int next(pid_t pid, int *status) {
    if (waitpid(pid, status, WUNTRACED) != pid) fail("waitpid");
    return *status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
}

static void probe(const struct calls *on, const char *what, long value, long nr, long a, long b, long c) {
    int status;
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) child(on->abi, nr, a, b, c);
    next(pid, &status);
    if (!WIFSTOPPED(status)) exit(1); /* it has said why */
    if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL)) fail("ptrace");
    kill(pid, SIGCONT);
    asked++;
    while (!next(pid, &status)) {
        if (!WIFSTOPPED(status)) return;
        ptrace(PTRACE_CONT, pid, 0, 0);
    }
    printf("%s %s(%ld)\n", on->name, what, value);
    kill(pid, SIGKILL);
    next(pid, &status);
}

static void probe_calls(const struct calls *on) {
    for (long nr = 0; nr < CALLS; nr++) {
        probe(on, "zeros", nr, nr, 0, 0, 0);
        probe(on, "ones", nr, nr, -1, -1, -1);
    }
    for (long bit = 0; bit < BITS; bit++) {
        probe(on, "clone", bit, on->clone, 1L << bit, 0, 0);
        probe(on, "personality", bit, on->personality, 1L << bit, 0, 0);
    }
}

/* The kernel reads 32 bits of a family or a protocol, and a filter compares 64. */
static void probe_sockets(const struct calls *on) {
    for (long family = 0; family < FAMILIES; family++) {
        probe(on, "socket", family, on->socket, family, STREAM, 0);
        probe(on, "socketpair", family, on->socketpair, family, STREAM, 0);
        if (on->abi == I386) continue;
        probe(on, "wide-socket", family, on->socket, 1L << 32 | family, STREAM, 0);
        probe(on, "wide-socketpair", family, on->socketpair, 1L << 32 | family, STREAM, 0);
    }
    for (long protocol = 0; protocol < PROTOCOLS; protocol++) {
        probe(on, "netlink", protocol, on->socket, NETLINK, RAW, protocol);
        if (on->abi != I386) probe(on, "wide-netlink", protocol, on->socket, NETLINK, RAW, 1L << 32 | protocol);
        if (on->socketcall >= 0) probe(on, "socketcall", protocol, on->socketcall, protocol, 0, 0);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        probe_calls(&all[i]);
        probe_sockets(&all[i]);
    }
    printf("asked %lu\n", asked);
    return 0;
}
