/* Grows a random tree of processes that try to escape a kill: `tree SEED`. It prints "up" when its first process has
   made its children; the others may still be at it. Something of the tree lives for ever.
   `tree chain`: each process founds a session, lives an instant and leaves another one behind.
   `tree crowd COUNT`: so many children that do nothing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEPTH = 3, CHILDREN = 3, MOMENT_US = 1000, INSTANT_US = 100, KINDS = 7 };

static uint64_t state;
static char **words;

static unsigned next_random(unsigned below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 16) % below);
}

static _Noreturn void live(unsigned depth);

static _Noreturn void sleep_for_ever(void) {
    for (;;) pause();
}

static void *live_on(void *ignored) {
    (void)ignored;
    sleep_for_ever();
}

/* The main thread ends alone: the kernel shows the process as a zombie. */
static _Noreturn void behead(void) {
    pthread_t other;
    if (pthread_create(&other, NULL, live_on, NULL) == 0) syscall(SYS_exit, 0);
    sleep_for_ever();
}

/* Each process lives a moment, and leaves another one behind. */
static _Noreturn void run_away(void) {
    for (;;) {
        usleep(MOMENT_US);
        if (fork() > 0) _exit(0);
    }
}

static void fork_once(int number) {
    signal(number, SIG_IGN);
    if (fork() == 0) sleep_for_ever();
}

/* Becomes what its random number says. */
static _Noreturn void settle(unsigned kinds) {
    switch (next_random(kinds)) {
    case 0: behead();
    case 1: run_away();
    case 2: raise(SIGSTOP); break;
    case 3: signal(SIGTERM, fork_once); break;
    case 4:
        for (int number = 1; number < 32; number++) signal(number, SIG_IGN);
        break;
    case 5: break;
    case 6: _exit(0); /* its children become orphans */
    default: break;
    }
    sleep_for_ever();
}

/* A child whose stops and end its parent must acknowledge, and never does. */
static void make_traced(unsigned depth) {
    if (fork()) return;
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    live(depth);
}

/* A child of the caller's own parent. */
static void make_sibling(unsigned depth) {
    if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) live(depth);
}

/* A program of its own, by vfork. */
static void make_program(void) {
    char seed[24];
    snprintf(seed, sizeof seed, "%u", 1 + next_random(1U << 30));
    char *argv[] = {words[0], seed, "again", NULL};
    if (vfork() == 0) {
        execv("/proc/self/exe", argv);
        _exit(127);
    }
}

static void make_child(unsigned depth) {
    unsigned how = next_random(7);
    if (how == 0) make_traced(depth);
    else if (how == 1) make_sibling(depth);
    else if (how == 2 && !words[2]) make_program();
    else if (fork() == 0) {
        if (how == 3) setsid();
        if (how == 4) setpgid(0, 0);
        if (how == 5 && fork()) _exit(0);
        live(depth);
    }
}

/* Has children, and is then what its random number says. */
static _Noreturn void live(unsigned depth) {
    state += (uint64_t)getpid() << 20;
    for (unsigned i = depth ? next_random(CHILDREN + 1) : 0; i; i--) make_child(depth - 1);
    settle(KINDS);
}

static _Noreturn void chain(void) {
    for (;;) {
        setsid();
        usleep(INSTANT_US);
        if (fork() > 0) _exit(0);
    }
}

static _Noreturn void crowd(int count) {
    while (count--)
        if (fork() == 0) sleep_for_ever();
    puts("up"), fflush(stdout);
    sleep_for_ever();
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    words = argv;
    if (!strcmp(argv[1], "chain")) puts("up"), fflush(stdout), chain();
    if (!strcmp(argv[1], "crowd") && argc == 3) crowd(atoi(argv[2]));
    state = strtoull(argv[1], NULL, 10) | 1;
    for (int i = 0; i < 8; i++) next_random(2);
    for (unsigned i = 1 + next_random(CHILDREN); i; i--) make_child(DEPTH - 1);
    if (argc == 2) puts("up"), fflush(stdout);
    settle(KINDS - 1); /* something of the tree lives on in any case */
}
