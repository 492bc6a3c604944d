"""Measure files on their way into a sandbox and out of it beside docker's own ways, in one run.

    python bench/files.py [--write docs/benchmarks.md] [--megabytes 256]

The peers copy into and out of the same workspace. The ratios matter, not the figures.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from doors import Served, serving
from page import write_section

HEADING = "## Files"
ROUNDS = 5
#: Bytes of the file that shows what the server holds of it.
LARGE = 1 << 30
PATH = "/files/bench/file"
#: Files are not saved meanwhile, which would be measured too.
CONFIG = (
    'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n[workspace]\nkeep = "0"\nsize = "2000m"\n'
    '[terminal]\nmemory = "3g"\n'
)
PIECE = 1 << 20


@dataclass
class Way:
    """One way in and out, and how many MB/s were measured of each."""

    name: str
    put: Callable[[Path], None]
    get: Callable[[Path], None]
    into: list[float] = field(default_factory=list)
    out: list[float] = field(default_factory=list)


def timed(call: Callable[[Path], None], file: Path, size: int) -> float:
    began = time.monotonic()
    call(file)
    return size / (time.monotonic() - began) / 1e6


def ask(served: Served, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port))
    connection.sendall(f"{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
    return connection


def put(served: Served, file: Path) -> None:
    head = f"PUT {PATH} HTTP/1.1\r\ncontent-length: {file.stat().st_size}"
    with ask(served, head) as connection, file.open("rb") as source:
        connection.sendfile(source)
        answer = connection.recv(PIECE)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"A file was not taken: {answer!r}")


def get(served: Served, file: Path) -> None:
    buffer, first = memoryview(bytearray(PIECE)), True
    with ask(served, f"GET {PATH} HTTP/1.1") as connection, file.open("wb") as target:
        while size := connection.recv_into(buffer):
            if first and not bytes(buffer[:13]) == b"HTTP/1.1 200 ":
                raise SystemExit("A file was not sent.")
            target.write(buffer[:size])  # with the answer's head, which is short
            first = False


def docker(*words: str, source: Path | None = None, target: Path | None = None) -> None:
    with (source or Path(os.devnull)).open("rb") as given, (target or Path(os.devnull)).open("wb") as taken:
        subprocess.run(["docker", *words], stdin=given, stdout=taken, check=True)


def ways(served: Served, container: str) -> list[Way]:
    inside = f"{container}:/workspace/copied"
    user = ("exec", "-i", "-u", "1000", container)
    return [
        Way("taskcell, `/files`", lambda file: put(served, file), lambda file: get(served, file)),
        Way("`docker cp`", lambda file: docker("cp", str(file), inside), lambda file: docker("cp", inside, str(file))),
        Way(
            "`docker exec`, `cat`",
            lambda file: docker(*user, "sh", "-c", "cat > /workspace/streamed", source=file),
            lambda file: docker(*user, "cat", "/workspace/streamed", target=file),
        ),
    ]


def rows(measured: list[Way]) -> list[str]:
    def cell(values: list[float], own: list[float]) -> str:
        value = statistics.median(values)
        return f"{value:.0f} MB/s | {value / statistics.median(own):.2f} times"

    first = measured[0]
    return [f"| {way.name} | {cell(way.into, first.into)} | {cell(way.out, first.out)} |" for way in measured]


def growth(served: Served, call: Callable[[], None]) -> int:
    """Bytes by which the server's memory is larger during a call than before, at the most."""
    before, most, ended = served.resident(), 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not ended.wait(0.02):
            most = max(most, served.resident())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        call()
    finally:
        ended.set()
        looking.join()
    return max(0, most - before)


def measure(folder: Path, megabytes: int) -> str:
    file, back, tiny = folder / "file", folder / "back", folder / "tiny"
    tiny.write_bytes(b"x")
    file.write_bytes(os.urandom(1 << 20) * megabytes)
    deployment = f"bench-files-{os.getpid()}"
    with serving(folder / "server", f'deployment = "{deployment}"\n{CONFIG}') as served:
        put(served, tiny)
        chosen = ["docker", "ps", "--quiet", "--filter", f"label=taskcell.deployment={deployment}"]
        (container,) = subprocess.check_output(chosen, text=True).split()
        measured = ways(served, container)
        for number in range(ROUNDS + 1):
            for way in measured:
                speed = timed(way.put, file, megabytes << 20), timed(way.get, back, megabytes << 20)
                if number:  # the first round warms up
                    way.into.append(speed[0])
                    way.out.append(speed[1])
        with file.open("wb") as large:
            large.truncate(LARGE)
        grown = growth(served, lambda: put(served, file)), growth(served, lambda: get(served, back))
        if back.stat().st_size < LARGE:
            raise SystemExit("The large file did not come back whole.")
    lines = [
        HEADING,
        "",
        f"`make bench` writes this section: {megabytes} MiB into a workspace in memory and out of it, {ROUNDS} rounds",
        "in turn. Medians, and ratios to taskcell. `docker cp` runs as root, on the host, and passes no policy.",
        "",
        "| way | in | ratio | out | ratio |",
        "| --- | --- | --- | --- | --- |",
        *rows(measured),
        "",
        f"- While 1 GiB goes in, the server's memory grows by {grown[0] >> 20} MiB at the most; while it comes out, by "
        f"{grown[1] >> 20} MiB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="write the section into this page as well")
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        section = measure(Path(folder), options.megabytes)
    print(section)
    if options.write:
        write_section(options.write, HEADING, section)


if __name__ == "__main__":
    main()
