"""A proxy before a container engine that holds back chosen requests, or the answers to them, and breaks connections."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_REQUEST = re.compile(rb"(GET|POST|DELETE|PUT|HEAD) (\S+) HTTP/1")
_CHUNK = 1 << 16


class HeldEngine:
    """Listens on `host` until `close`. A request that was held goes on to the engine after `release`.

    Arguments:
        upstream: path of the engine's socket.
    """

    def __init__(self, upstream: str = "/var/run/docker.sock") -> None:
        self._upstream = upstream
        # A socket's path must be short: pytest's own folders would make it longer than it may be.
        self._folder = Path(tempfile.mkdtemp(prefix="taskcell-held-"))
        self.host = f"unix://{self._folder}/docker.sock"
        #: Every request, as in `POST /v1.41/containers/create?name=x`.
        self.requests: list[str] = []
        self._held: dict[str, bool] = {}
        self._released = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/docker.sock")
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, pattern: str, *, answer_only: bool = False) -> None:
        """Hold the requests that a regular expression finds; `answer_only` lets the engine have them."""
        self._held[pattern] = answer_only
        self._released.clear()

    def release(self) -> None:
        """Let everything go on."""
        self._held.clear()
        self._released.set()

    def seen(self, pattern: str) -> int:
        """How many requests a regular expression finds."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def cut(self) -> None:
        """Break every connection, as a network does; new ones go through."""
        cut, self._open = self._open, set()
        for open_socket in cut:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def close(self) -> None:
        self.release()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._upstream)
                self._open |= {client, engine}
                may_answer = threading.Event()
                may_answer.set()
                threading.Thread(target=self._to_engine, args=(client, engine, may_answer), daemon=True).start()
                threading.Thread(target=self._to_client, args=(engine, client, may_answer), daemon=True).start()

    def _to_engine(self, client: socket.socket, engine: socket.socket, may_answer: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if found := _REQUEST.match(data):
                    request = b" ".join(found.groups()).decode()
                    self.requests.append(request)
                    may_answer.set()
                    for pattern, answer_only in list(self._held.items()):
                        if re.search(pattern, request):
                            may_answer.clear()
                            if not answer_only:
                                self._released.wait()
                engine.sendall(data)
        with suppress(OSError):
            engine.shutdown(socket.SHUT_WR)

    def _to_client(self, engine: socket.socket, client: socket.socket, may_answer: threading.Event) -> None:
        with suppress(OSError):
            while data := engine.recv(_CHUNK):
                if not may_answer.is_set():
                    self._released.wait()
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
