"""A TCP relay that loses a connection at the moment that a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Bytes that are passed on at once.
PIECE = 1 << 16


class CuttingRelay:
    """Passes bytes on between clients and a server on loopback, and notices one word in each direction.

    Arguments:
        port: the server's.
        word: the first connection on which the server sends this is cut after it.
        sign: what a client sends that comes back.
    """

    def __init__(self, port: int, *, word: bytes, sign: bytes) -> None:
        self._server = port
        self._word, self._sign = word, sign
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        #: A connection was cut; a client came back after that.
        self.cut, self.back = threading.Event(), threading.Event()

    @contextmanager
    def running(self) -> Iterator[CuttingRelay]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                for source, target, notice in ((client, server, self._sent), (server, client, self._answered)):
                    threading.Thread(target=_pass_on, args=(source, target, notice), daemon=True).start()

    def _sent(self, seen: bytes) -> bool:
        if self.cut.is_set() and self._sign in seen.lower():
            self.back.set()
        return True

    def _answered(self, seen: bytes) -> bool:
        if self.cut.is_set() or self._word not in seen:
            return True
        self.cut.set()
        return False


def _pass_on(source: socket.socket, target: socket.socket, notice: object) -> None:
    """Pass bytes on until one side closes or `notice`, called with the last bytes, says no; then close both."""
    assert callable(notice)
    last = b""
    with suppress(OSError):
        while piece := source.recv(PIECE):
            last = last[-PIECE:] + piece
            target.sendall(piece)
            if not notice(last):
                break
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
