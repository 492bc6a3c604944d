"""A TCP relay on loopback that turns slow: `slow_relay.py PORT UPSTREAM LOG`, in a network namespace of its own.

Of each connection it passes the first answers on at once, and then so little that a pull takes minutes. LOG gets the
line `cut` when the client closes a connection meanwhile.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

#: Bytes that pass at once: enough for what a registry says about an image. Then pieces, with seconds between them.
AT_ONCE, PIECE, PAUSE = 1 << 14, 1 << 10, 0.1


def main(port: int, upstream: int, log: Path) -> None:
    listening = socket.create_server(("127.0.0.1", port))
    while True:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", upstream))
        threading.Thread(target=pass_on, args=(client, server), daemon=True).start()
        threading.Thread(target=trickle, args=(server, client, log), daemon=True).start()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def trickle(source: socket.socket, target: socket.socket, log: Path) -> None:
    passed = 0
    with source, target:
        while piece := source.recv(PIECE):
            passed += len(piece)
            if passed > AT_ONCE:
                time.sleep(PAUSE)
            try:
                target.sendall(piece)
            except OSError:
                with log.open("a") as file:
                    file.write("cut\n")
                return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
