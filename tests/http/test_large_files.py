"""A gigabyte goes into a container and comes out whole, and the server holds none of it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from http_load import resident
from http_serving import HttpServer, read_all, serving_http

pytestmark = [pytest.mark.faults, pytest.mark.engine]

PIECES, PIECE = 1024, os.urandom(1 << 20)
#: Bytes by which the server may grow: what is on its way in buffers, and freed memory that it keeps.
MAX_GROWTH = 48 << 20
#: Seconds between two looks at the server's memory.
INTERVAL = 0.05
CONFIG = 'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n[workspace]\nsize = "1100m"\n[terminal]\nmemory = "2g"\n'


class Watched:
    """A server's memory, looked at all the time."""

    def __init__(self, server: HttpServer) -> None:
        self._pid, self._ended = server.process.pid, threading.Event()
        self.most = 0

    def look(self) -> None:
        while not self._ended.wait(INTERVAL):
            self.most = max(self.most, resident(self._pid))

    @contextmanager
    def during(self) -> Iterator[None]:
        looking = threading.Thread(target=self.look)
        looking.start()
        try:
            yield
        finally:
            self._ended.set()
            looking.join()


def put(server: HttpServer, path: str, pieces: int) -> bytes:
    with server.connect() as connection:
        head = f"PUT /files/t/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
        connection.sendall(f"{head}content-length: {pieces * len(PIECE)}\r\n\r\n".encode())
        for _ in range(pieces):
            connection.sendall(PIECE)
        return read_all(connection)


def digest_of(server: HttpServer, path: str) -> str:
    found = hashlib.sha256()
    with server.connect() as connection:
        connection.sendall(f"GET /files/t/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        stream = connection.makefile("rb")
        while stream.readline() != b"\r\n":
            pass
        while data := stream.read(1 << 20):
            found.update(data)
    return found.hexdigest()


def test_a_gigabyte_goes_in_and_comes_out_whole_while_memory_stays_level(tmp_path: Path) -> None:
    wanted = hashlib.sha256()
    for _ in range(PIECES):
        wanted.update(PIECE)
    with serving_http(tmp_path, CONFIG) as server:
        assert b" 200 " in put(server, "small", 4)
        before, watched = resident(server.process.pid), Watched(server)
        with watched.during():
            assert b" 200 " in put(server, "large", PIECES)
            assert digest_of(server, "large") == wanted.hexdigest()
        print(f"\nmemory: {before >> 20} MiB before, {watched.most >> 20} MiB at the most")
        assert watched.most - before < MAX_GROWTH
        assert server.end() == 0
