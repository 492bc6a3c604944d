"""Programs that people use, from Debian, in a sandbox: its filter of system calls and its bounds leave them alone."""

from __future__ import annotations

import io
from collections.abc import Iterator

import docker
import pytest

from gateways import GatewayFactory
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.faults]

IMAGE = "taskcell/test-programs:latest"
PACKAGES = "gcc libc6-dev make golang-go openjdk-17-jdk-headless nodejs ffmpeg git curl gdb strace mariadb-server"
DOCKERFILE = f"""FROM taskcell/base:latest
USER 0
# Java's package makes a link in that folder, which slim images leave out.
RUN mkdir -p /usr/share/man/man1 && apt-get update && apt-get install -y --no-install-recommends {PACKAGES}
"""
#: Seconds to fetch and unpack 1.5 GB of packages.
BUILD_TIMEOUT = 1200
TOML = f"""[terminal]
image = "{IMAGE}"
memory = "3g"
[workspace]
size = "1g"
"""
THREADS = """cat >threads.c <<'C'
#include <pthread.h>
#include <stdio.h>
static void *count(void *n) { ++*(int *)n; return n; }
int main(void) {
    pthread_t threads[64]; int done[64] = {0};
    for (int i = 0; i < 64; i++) if (pthread_create(&threads[i], 0, count, &done[i])) return 1;
    for (int i = 0; i < 64; i++) if (pthread_join(threads[i], 0) || done[i] != 1) return 2;
    puts("64 threads");
}
C
printf 'threads: threads.c\\n\\tgcc -g -o threads threads.c -lpthread\\n' >Makefile
make -s
"""
#: What is run, and what it prints last.
PROGRAMS = {
    "gcc and make": (f"{THREADS} ./threads", "64 threads"),
    "sanitizers": (f"{THREADS} gcc -fsanitize=address,undefined -o t threads.c -lpthread && ./t", "64 threads"),
    "gdb": (
        f"{THREADS} gdb -batch -ex 'break count' -ex run -ex 'bt 1' ./threads 2>&1 | grep -o 'count (n=' ",
        "count (n=",
    ),
    "strace": (
        f"{THREADS} strace -o log -f -e trace=write ./threads && grep -o 'write(1, .*64 threads' log",
        'write(1, "64 threads',
    ),
    "Python": (
        """cat >all.py <<'P'
import asyncio, multiprocessing, os, socket, sqlite3, subprocess, threading
from multiprocessing import shared_memory
def square(x): return x * x
async def serve():
    async def echo(reader, writer): writer.write(await reader.readline()); await writer.drain(); writer.close()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"over tcp\\n"); assert await reader.readline() == b"over tcp\\n"
    child = await asyncio.create_subprocess_exec("echo", "x", stdout=-1)
    assert (await child.communicate())[0] == b"x\\n"
if __name__ == "__main__":
    seen = []
    threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(50)]
    [t.start() for t in threads]; [t.join() for t in threads]; assert len(seen) == 50
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(3) as pool: assert pool.map(square, range(9))[8] == 64
    memory = shared_memory.SharedMemory(create=True, size=4096); memory.close(); memory.unlink()
    asyncio.run(serve()); sqlite3.connect("db").execute("create table t(a)"); assert socket.if_nameindex()
    os.pidfd_open(os.getpid()); os.posix_spawn("/bin/true", ["true"], {}); print("Python is whole")
P
python3 all.py""",
        "Python is whole",
    ),
    "Node": (
        """cat >all.js <<'J'
const { Worker } = require("worker_threads"), http = require("http"), { execFileSync } = require("child_process");
(async () => {
  await new Promise((ok, no) => new Worker("process.exit(0)", { eval: true }).on("exit", ok).on("error", no));
  const server = http.createServer((_, answer) => answer.end("served"));
  await new Promise((ok) => server.listen(0, "127.0.0.1", ok));
  const answer = await fetch(`http://127.0.0.1:${server.address().port}`);
  require("fs").watch("all.js").close(); execFileSync("true");
  console.log("Node", await answer.text()); process.exit(0);
})();
J
UV_USE_IO_URING=1 node all.js""",
        "Node served",
    ),
    "Go": (
        """mkdir -p hello && cd hello && cat >main.go <<'G'
package main
import ("fmt"; "io"; "net"; "net/http"; "os/exec"; "sync")
func main() {
    var group sync.WaitGroup; var lock sync.Mutex; n := 0
    for i := 0; i < 1000; i++ { group.Add(1); go func() { defer group.Done(); lock.Lock(); n++; lock.Unlock() }() }
    group.Wait()
    listener, err := net.Listen("tcp", "127.0.0.1:0"); if err != nil { panic(err) }
    go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }))
    answer, err := http.Get("http://" + listener.Addr().String()); if err != nil { panic(err) }
    body, _ := io.ReadAll(answer.Body)
    if err := exec.Command("true").Run(); err != nil { panic(err) }
    fmt.Println("Go", n, string(body))
}
G
go mod init hello 2>/dev/null; GOCACHE=/workspace/cache go build -o ../go-hello . && ../go-hello""",
        "Go 1000 served",
    ),
    "a JVM": (
        """cat >All.java <<'J'
import java.net.*; import java.util.concurrent.*;
public class All { public static void main(String[] a) throws Exception {
    var pool = Executors.newFixedThreadPool(16); int sum = 0;
    var all = new java.util.ArrayList<Future<Integer>>();
    for (int i = 0; i < 100; i++) { int n = i; all.add(pool.submit(() -> n)); }
    for (var one : all) sum += one.get();
    pool.shutdown();
    try (var server = new ServerSocket(0);
         var client = new Socket("127.0.0.1", server.getLocalPort()); var s = server.accept()) {
        client.getOutputStream().write(7);
        new ProcessBuilder("true").start().waitFor(); System.gc();
        System.out.println("Java " + sum + " " + s.getInputStream().read());
    }
} }
J
javac All.java; for gc in Serial Parallel G1 Z; do java -XX:+UseNUMA -XX:+Use${gc}GC -Xmx256m All || exit; done""",
        "Java 4950 7",
    ),
    "ffmpeg": (
        """ffmpeg -v error -y -f lavfi -i testsrc=d=1:s=320x240 -f lavfi -i sine=d=1 -c:v libx264 -c:a aac out.mp4
ffprobe -v error -show_entries format=duration -of csv out.mp4""",
        "format,1.000000",
    ),
    "git": (
        """git config --global user.email a@b; git config --global user.name n
git init -q one && cd one && echo x >x && git add x && git commit -qm first && git gc -q
git clone -q . ../two && git -C ../two log --format=%s""",
        "first",
    ),
    "curl": (
        """python3 -m http.server -b 127.0.0.1 8099 >/dev/null 2>&1 & server=$!
echo fetched >page; curl -sf --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8099/page; kill $server""",
        "fetched",
    ),
    "MariaDB, whose asynchronous input and output is closed": (
        """export PATH=$PATH:/usr/sbin; at="--no-defaults --socket=/tmp/db.sock"
mariadb-install-db --no-defaults --datadir=/workspace/db --auth-root-authentication-method=normal >/dev/null 2>&1
mariadbd $at --datadir=/workspace/db --skip-networking 2>log &
for i in $(seq 100); do mariadb $at -u root -e 'select 1' >/dev/null 2>&1 && break; sleep 0.2; done
mariadb $at -u root -N -e 'create database d; create table d.t(a int) engine=innodb; insert into d.t values(41); \
select a+1 from d.t'; mariadb-admin $at -u root shutdown; wait""",
        "42",
    ),
}


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """With everything in it, built once and removed at the end."""
    api = docker.APIClient(version="auto", timeout=BUILD_TIMEOUT)
    # The engine's own network reaches Debian's packages, as for the images that taskcell builds.
    steps = api.build(
        fileobj=io.BytesIO(DOCKERFILE.encode()), tag=IMAGE, rm=True, forcerm=True, decode=True, network_mode="host"
    )
    said = [str(step.get("error") or step.get("stream", "")) for step in steps]
    assert api.images(IMAGE), "".join(said)[-3000:]
    yield IMAGE
    api.remove_image(IMAGE, force=True)
    api.close()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_works_as_it_does_elsewhere(gateway: GatewayFactory, image: str, name: str) -> None:
    script, last = PROGRAMS[name]
    async with gateway(TOML) as gw:
        result = await gw.call(
            ToolCall("local", "terminal", {"command": f"set -e\n{script}", "timeout": 300, "wait": 300})
        )
    assert result.exit_code == 0, result
    assert result.stdout.rstrip().endswith(last), result
