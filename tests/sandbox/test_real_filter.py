"""The filter of system calls leaves real programs all that they need: threads, watches, maps, sockets, processes.

Each program uses what its runtime reaches the kernel by in its own way. ffmpeg stands in `tests/shipped`; git and Rust
stand in the sessions with real languages.
"""

from __future__ import annotations

from dataclasses import dataclass

import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from toolchains import GO, JAVA, NODE, PYTHON, C, Toolchain, ensure

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
#include <errno.h>
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
#include <sys/syscall.h>
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
    // What tries a ring first, as newer runtimes do, goes on without one after either error.
    TRY(syscall(SYS_io_uring_setup, 1, NULL) < 0 && (errno == EPERM || errno == ENOSYS));
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
    Program(
        NODE,
        "all.mjs",
        "node all.mjs",
        """
import assert from "node:assert";
import { execFile, fork } from "node:child_process";
import cluster from "node:cluster";
import { once } from "node:events";
import fs from "node:fs/promises";
import http from "node:http";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";

if (process.send) {
    process.on("message", (number) => process.send(number * 2, () => process.disconnect()));
} else {
    const shared = new SharedArrayBuffer(4);
    const text = `const { workerData } = require("worker_threads");
        for (let i = 0; i < 1000; i++) Atomics.add(new Int32Array(workerData), 0, 1);`;
    const workers = [1, 2, 3, 4].map(() => new Worker(text, { eval: true, workerData: shared }));
    await Promise.all(workers.map((worker) => once(worker, "exit")));
    assert.strictEqual(new Int32Array(shared)[0], 4000);

    const child = fork(process.argv[1]);
    child.send(21);
    assert.strictEqual((await once(child, "message"))[0], 42);
    assert.strictEqual((await promisify(execFile)("echo", ["line"])).stdout, "line\\n");

    await Promise.all([...Array(20).keys()].map((n) => fs.writeFile(`file-${n}`, "x".repeat(1 << 16))));
    const read = await Promise.all([...Array(20).keys()].map((n) => fs.readFile(`file-${n}`)));
    assert(read.every((data) => data.length === 1 << 16));
    const watch = fs.watch(".");
    setTimeout(() => fs.writeFile("watched", "x"), 100);
    for await (const event of watch) { if (event.filename === "watched") break; }

    const server = http.createServer((_, answer) => answer.end("line")).listen(0, "127.0.0.1");
    await once(server, "listening");
    assert.strictEqual(await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text(), "line");
    server.closeAllConnections();
    server.close();
    console.log("ok");
}
""",
    ),
    Program(
        GO,
        "all.go",
        "go build -o all all.go && ./all",
        """
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func try(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	// Threads of the system's own, each held by its goroutine; and rubbish, which the runtime gives back meanwhile.
	var all sync.WaitGroup
	for i := 0; i < 30; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			var rubbish [4][]byte
			for j := 0; j < 50; j++ {
				rubbish[j%4] = make([]byte, 1<<16)
			}
			time.Sleep(time.Millisecond)
			syscall.Getpid()
		}()
	}
	all.Wait()
	runtime.GC()

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	try(syscall.Kill(os.Getpid(), syscall.SIGUSR1))
	<-signals

	server, err := net.Listen("tcp", "127.0.0.1:0")
	try(err)
	go func() {
		for {
			one, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				line, _ := bufio.NewReader(one).ReadString('\\n')
				fmt.Fprint(one, line)
				one.Close()
			}()
		}
	}()
	for i := 0; i < 20; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			one, err := net.Dial("tcp", server.Addr().String())
			try(err)
			fmt.Fprint(one, "line\\n")
			line, err := bufio.NewReader(one).ReadString('\\n')
			try(err)
			if line != "line\\n" {
				panic(line)
			}
		}()
	}
	all.Wait()

	said, err := exec.Command("sh", "-c", "echo line").Output()
	try(err)
	if string(said) != "line\\n" {
		panic(said)
	}
	file, err := os.Create("mapped")
	try(err)
	try(file.Truncate(1 << 20))
	mapped, err := syscall.Mmap(int(file.Fd()), 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	try(err)
	mapped[1<<19] = 7
	try(syscall.Munmap(mapped))
	fmt.Println("ok")
}
""",
    ),
    Program(
        JAVA,
        "All.java",
        # A heap that fills many times over, so that each collector moves it.
        "javac All.java && for gc in Serial G1 Z; do java -Xmx128m -XX:+Use${gc}GC All >$gc || exit; done && "
        "cat Z && cmp Serial Z && cmp G1 Z",
        """
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.util.ArrayDeque;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import com.sun.net.httpserver.HttpServer;

class All {
    static int fill(int seed) {
        ArrayDeque<byte[]> kept = new ArrayDeque<>();
        int sum = 0;
        for (int i = 0; i < 5000; i++) {
            kept.add(new byte[4096 + seed]);
            if (kept.size() > 200) sum += kept.remove().length;
        }
        return sum;
    }

    static void must(boolean holds) {
        if (!holds) throw new AssertionError();
    }

    public static void main(String[] words) {
        try {
            all();
            System.out.println("ok");
        } catch (Throwable error) {
            error.printStackTrace();
        }
        System.exit(0);  // whatever threads still live
    }

    static void all() throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        var sums = new ConcurrentLinkedQueue<Future<Integer>>();
        for (int i = 0; i < 16; i++) { int seed = i; sums.add(pool.submit(() -> fill(seed))); }
        for (var sum : sums) must(sum.get() > 4096 * 4000);
        must(IntStream.range(0, 100_000).parallel().map(n -> n % 7).sum() == 299_995);
        System.gc();

        var child = new ProcessBuilder("sh", "-c", "cat; echo line").start();
        child.getOutputStream().close();
        must(new String(child.getInputStream().readAllBytes()).equals("line\\n"));
        must(child.waitFor() == 0);

        try (var file = new RandomAccessFile("mapped", "rw")) {
            var map = file.getChannel().map(MapMode.READ_WRITE, 0, 1 << 20);
            map.put(1 << 19, (byte) 7);
            map.force();
        }
        try (var watch = Path.of(".").getFileSystem().newWatchService()) {
            Path.of(".").register(watch, StandardWatchEventKinds.ENTRY_CREATE);
            Files.delete(Files.createTempFile(Path.of("."), "watched", ""));
            must(watch.poll(60, TimeUnit.SECONDS) != null);
        }
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, 4);
            try (var body = exchange.getResponseBody()) { body.write("line".getBytes()); }
        });
        server.start();
        var address = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(address).build(), BodyHandlers.ofString());
        must(answer.body().equals("line"));
    }
}
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
