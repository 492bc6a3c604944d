"""The filter of system calls leaves real programs all that they need: threads, watches, maps, sockets, processes.

Each program uses what its runtime reaches the kernel by in its own way. ffmpeg stands in `tests/shipped`; git, Go, Rust
and Node stand in the sessions with real languages.
"""

from __future__ import annotations

from dataclasses import dataclass

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from toolchains import PYTHON, C, Toolchain, ensure

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.languages]


@dataclass(frozen=True)
class Program:
    """A program that prints `ok` when all that it tried worked."""

    toolchain: Toolchain
    file: str
    command: str
    text: str


PROGRAMS = (
    Program(
        C,
        "all.c",
        "gcc -O1 -g -fsanitize=address,undefined -pthread all.c -o all && ASAN_OPTIONS=detect_leaks=0 ./all",
        r"""
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
static void *run(void *got) { sem_post(got); return NULL; }
#define TRY(x) do { if (!(x)) { perror(#x); return 1; } } while (0)
int main(void) {
    sem_t done;
    pthread_t thread;
    TRY(!sem_init(&done, 1, 0));
    TRY(!pthread_create(&thread, NULL, run, &done) && !sem_wait(&done) && !pthread_join(thread, NULL));
    int memory = memfd_create("m", MFD_CLOEXEC);
    TRY(memory >= 0 && !ftruncate(memory, 1 << 20));
    void *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    TRY(map != MAP_FAILED && (map = mremap(map, 1 << 20, 2 << 20, MREMAP_MAYMOVE)) != MAP_FAILED);
    void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TRY(code != MAP_FAILED && !mprotect(code, 4096, PROT_READ | PROT_EXEC) && !madvise(map, 4096, MADV_DONTNEED));
    int epoll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(1, EFD_NONBLOCK);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event wanted = {.events = EPOLLIN}, got;
    TRY(epoll >= 0 && timer >= 0 && !epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted));
    TRY(epoll_wait(epoll, &got, 1, 5000) == 1);
    sigset_t signals;
    sigemptyset(&signals);
    TRY(signalfd(-1, &signals, 0) >= 0 && inotify_init1(IN_CLOEXEC) >= 0);
    pid_t child;
    char *words[] = {"true", NULL};
    int status;
    TRY(!posix_spawnp(&child, "true", NULL, NULL, words, environ) && waitpid(child, &status, 0) == child && !status);
    puts("ok");
    return 0;
}
""",
    ),
    Program(
        PYTHON,
        "all.py",
        "python3 all.py",
        """
import asyncio, concurrent.futures, mmap, multiprocessing, multiprocessing.shared_memory, os, tempfile

def square(n): return n * n

async def talk():
    async def serve(reader, writer):
        writer.write(await reader.readline()); writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\\n")
    assert await reader.readline() == b"line\\n"
    child = await asyncio.create_subprocess_exec("true")
    assert await child.wait() == 0

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
    shared = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    shared.close(); shared.unlink()
    asyncio.run(talk())
    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        mmap.mmap(file.fileno(), 4096)[0] = 7
    assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]) == 0
    assert os.pidfd_open(os.getpid()) >= 0
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    print("ok")
""",
    ),
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.toolchain.name)
async def test_a_real_program_has_every_system_call_that_it_needs(
    program: Program, docker_api: docker.APIClient, gateway: GatewayFactory
) -> None:
    async with gateway(f'[terminal]\nimage = "{ensure(docker_api, program.toolchain)}"\n') as gw:
        task = Task(gw)
        assert (await task.terminal(f"cat >{program.file}", stdin=program.text)).exit_code == 0
        done = await task.terminal(program.command, timeout=300, wait=300)
        assert (done.exit_code, done.stdout) == (0, "ok\n"), done
