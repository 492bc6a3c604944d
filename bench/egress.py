"""Measure the network by name beside a bridge, and beside an internal network with a proxy container, in one run.

    python bench/egress.py [--write docs/benchmarks.md]

A server on this machine sends and takes bytes. The peers get what favours them: containers that run already. The
ratios matter, not the figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import docker
from docker.models.containers import Container
from docker.models.networks import Network
from page import write_section

from taskcell.assembly.gateway import configured_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load
from taskcell.gateway.gateway import Gateway
from taskcell.model import LOCAL_PRINCIPAL, ProcessResult, ToolCall

IMAGE, PROXY_IMAGE = "taskcell/base:latest", "taskcell-bench/tinyproxy:latest"
#: Debian's small proxy stands for the container that others put beside a sandbox.
DOCKERFILE = (
    f"FROM {IMAGE}\nUSER 0:0\nRUN apt-get update -q && apt-get install -qy --no-install-recommends tinyproxy && "
    "printf 'Port 8888\\nMaxClients 64\\nTimeout 600\\n' > /etc/tinyproxy/tinyproxy.conf\n"
)
MEGABYTES, ROUNDS, CONNECTIONS = 128, 3, 40
#: The section that this program writes.
HEADING = "## The network by name"
LIMITS = {"mem_limit": "2g", "nano_cpus": 1_000_000_000, "pids_limit": 256}
#: Asks the server by a proxy, or without one: bytes down, bytes up, and connections with one byte each way.
PROGRAM = """
import os, socket, sys, time
host, port, proxy, size, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]) << 20, int(sys.argv[5])
def dial():
    if proxy == "-":
        return socket.create_connection((host, port))
    name, _, number = proxy.rpartition("//")[2].rpartition(":")
    s = socket.create_connection((name, int(number)))
    s.sendall(b"CONNECT %s:%d HTTP/1.1\\r\\nHost: %s:%d\\r\\n\\r\\n" % (host.encode(), port, host.encode(), port))
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += s.recv(1)
    assert b" 200 " in head.split(b"\\r\\n")[0], head
    return s
buffer, began, left = bytearray(1 << 20), time.monotonic(), size
s = dial(); s.sendall(b"D")
while left > 0:
    left -= s.recv_into(buffer)
down = size / (time.monotonic() - began) / 1e6
began = time.monotonic(); s = dial(); s.sendall(b"U")
for _ in range(size >> 20):
    s.sendall(buffer)
s.shutdown(socket.SHUT_WR); s.recv(1)
up, times = size / (time.monotonic() - began) / 1e6, []
for _ in range(count):
    began = time.monotonic()
    with dial() as s:
        s.sendall(b"P"); s.recv(1)
    times.append(time.monotonic() - began)
print(down, up, sorted(times)[count // 2] * 1000)
"""


@dataclass
class Way:
    """One way to the server, and what was measured: MB/s down and up, and milliseconds for a connection."""

    name: str
    down: list[float] = field(default_factory=list)
    up: list[float] = field(default_factory=list)
    connection: list[float] = field(default_factory=list)

    def add(self, printed: str) -> None:
        for into, value in zip((self.down, self.up, self.connection), printed.split(), strict=True):
            into.append(float(value))

    def row(self, first: Way) -> str:
        down, up, connection = (statistics.median(values) for values in (self.down, self.up, self.connection))
        ratios = (
            down / statistics.median(first.down),
            up / statistics.median(first.up),
            connection / statistics.median(first.connection),
        )
        figures = (f"{down:.0f} MB/s", f"{up:.0f} MB/s", f"{connection:.2f} ms")
        cells = (f"{figure} | {ratio:.2f} times" for figure, ratio in zip(figures, ratios, strict=True))
        return f"| {self.name} | {' | '.join(cells)} |"


def serve(listening: socket.socket) -> None:
    """Send, take or answer, as each connection's first byte says."""

    def talk(client: socket.socket) -> None:
        with client:
            what, piece = client.recv(1), bytes(1 << 20)
            if what == b"D":
                for _ in range(MEGABYTES):
                    client.sendall(piece)
            elif what == b"U":
                while client.recv(1 << 20):
                    pass
            else:
                client.sendall(b"x")

    while True:
        threading.Thread(target=talk, args=(listening.accept()[0],), daemon=True).start()


@contextmanager
def server(host: str) -> Iterator[int]:
    with socket.create_server((host, 0)) as listening:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(listening,), daemon=True)
        process.start()
        try:
            yield listening.getsockname()[1]
        finally:
            process.terminate()


@contextmanager
def peers(client: docker.DockerClient, host: str, port: int) -> Iterator[dict[str, Callable[[], str]]]:
    """A container on the bridge, and one on an internal network with a proxy container beside it."""
    if not client.images.list(PROXY_IMAGE):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(DOCKERFILE)
            client.images.build(path=folder, tag=PROXY_IMAGE, network_mode="host")
    made: list[Container | Network] = []
    try:
        internal = client.networks.create("taskcell-bench-internal", internal=True)
        made.append(internal)
        idle = {"entrypoint": ["sleep", "1000"], "detach": True, **LIMITS}
        plain = client.containers.run(IMAGE, network_mode="bridge", **idle)
        made.insert(0, plain)
        proxy = client.containers.run(
            PROXY_IMAGE, entrypoint=["tinyproxy", "-d"], user="0:0", network_mode="bridge", detach=True, **LIMITS
        )
        made.insert(0, proxy)
        internal.connect(proxy, aliases=["proxy"])
        inside = client.containers.run(IMAGE, network="taskcell-bench-internal", **idle)
        made.insert(0, inside)

        def run(container: Container, by: str) -> str:
            argv = ["python3", "-c", PROGRAM, host, str(port), by, str(MEGABYTES), str(CONNECTIONS)]
            code, output = container.exec_run(argv)
            if code:
                raise SystemExit(f"A peer failed: {output.decode()}")
            return str(output.decode())

        yield {
            "a bridge": lambda: run(plain, "-"),
            "an internal network, tinyproxy in a container": lambda: run(inside, "http://proxy:8888"),
        }
    finally:
        for thing in made:
            thing.remove(force=True) if isinstance(thing, Container) else thing.remove()


async def taskcell(gateway: Gateway, host: str, port: int) -> str:
    words = f"{host} {port} $https_proxy {MEGABYTES} {CONNECTIONS}"
    command = f"cat > p.py <<'END'\n{PROGRAM}END\npython3 p.py {words}"
    done = await gateway.call(ToolCall(LOCAL_PRINCIPAL, "terminal", {"command": command, "task_id": "bench"}))
    if not isinstance(done, ProcessResult) or done.exit_code:
        raise SystemExit(f"taskcell failed: {done}")
    return done.stdout


async def measure() -> str:
    """Measure all ways in turn; returns the section of the page."""
    client = docker.from_env()
    host = client.networks.get("bridge").attrs["IPAM"]["Config"][0].get("Gateway", "172.17.0.1")
    with server(host) as port, tempfile.TemporaryDirectory() as name, peers(client, host, port) as others:
        config = Path(name) / "taskcell.toml"
        entry = f"['{host}:{port}']"
        config.write_text(
            f"manifests = []\n[pool]\nwarm = 0\n[egress]\nmax_rate = '100g'\n[limits]\nwait = '1h'\n"
            f"[terminal]\negress = {entry}\n[policy]\nallowed_egress = {entry}\n"
        )
        run = Invocation({}, Path(name), config)
        ways = [Way("taskcell, `egress`"), *map(Way, others)]
        async with configured_gateway(run, load(run), for_one_call=True) as gateway:
            for _ in range(ROUNDS):
                before = time.process_time()
                ways[0].add(await taskcell(gateway, host, port))
                spent = time.process_time() - before
                for way in ways[1:]:
                    way.add(await anyio.to_thread.run_sync(others[way.name]))
    rate = 2 * MEGABYTES * (1 << 20) / 1e6 / spent
    lines = [
        HEADING,
        "",
        f"`make bench-egress` writes this section: {MEGABYTES} MiB from and to a server on this machine, and",
        f"{CONNECTIONS} connections with a byte each way, {ROUNDS} rounds in turn. Medians, and ratios to taskcell.",
        "",
        "| way | down | ratio | up | ratio | connection | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(way.row(ways[0]) for way in ways),
        "",
        f"- The server's own end relays {rate:.0f} MB for each second of processor time; the rest is the engine's",
        "  exec stream and the processors that all share.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="write the section into this page as well")
    options = parser.parse_args()
    section = anyio.run(measure, backend_options={"use_uvloop": True})
    print(section)
    if options.write:
        write_section(options.write, HEADING, section)


if __name__ == "__main__":
    main()
