"""Well-known names with public addresses for one server: where this machine has a mirror of them, it is asked.

The server stands in a network namespace whose only way out leads to a second one. There each name has an address that
is everybody's, and what connects to it is relayed, byte for byte, to where the name leads on this machine.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc

from taskcell.byte_streams import BROKEN, splice

#: The namespace's way out, and the first of the names' addresses: of a network that is in use, so that it is public.
_OWN, _GATEWAY, _PUBLIC = "10.91.18.1", "10.91.18.2", "93.184.216."
_CLONE_NEWNET = 0x40000000
#: Runs a program with another /etc/hosts.
_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


@asynccontextmanager
async def public_names(folder: Path, hosts: Sequence[str]) -> AsyncIterator[tuple[str, ...]]:
    """Make a network in which `hosts` (`NAME:PORT`) are public; yield Python's arguments that run taskcell there.

    Needs root.
    """
    addresses = {name: f"{_PUBLIC}{number}" for number, name in enumerate(_names(hosts), 1)}
    lines = [f"{address} {name}" for name, address in addresses.items()]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    with _namespaces(list(addresses.values())) as (inner, outer):
        async with anyio.create_task_group() as group:
            for name, port in (host.rsplit(":", 1) for host in hosts):
                raw = _listening(outer, addresses[name], int(port))
                listener = await anyio.abc.SocketListener.from_socket(raw)
                group.start_soon(listener.serve, _Relay(name, int(port)))
            words = ["nsenter", f"--net=/run/netns/{inner}", "unshare", "--mount", "sh", "-c", _WITH_HOSTS]
            words += [str(folder / "hosts"), sys.executable, "-m", "taskcell"]
            yield "-c", f"import os, sys; os.execvp('nsenter', [*{words!r}, *sys.argv[1:]])"
            group.cancel_scope.cancel()


def _names(hosts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(host.rpartition(":")[0] for host in hosts))


class _Relay:
    """Carries a connection to where a name leads on this machine."""

    def __init__(self, name: str, port: int) -> None:
        self._name, self._port = name, port

    async def __call__(self, client: anyio.abc.ByteStream) -> None:
        async with client:
            with suppress(*BROKEN):
                async with await anyio.connect_tcp(self._name, self._port) as server:
                    await splice(client, server)


@contextmanager
def _namespaces(addresses: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Two network namespaces that are joined; the second one has the addresses. Yields their names."""
    mark = secrets.token_hex(3)
    inner, outer = f"cell-{mark}", f"net-{mark}"
    try:
        for line in (
            f"netns add {inner}",
            f"netns add {outer}",
            f"link add a{mark} netns {inner} type veth peer name b{mark} netns {outer}",
            f"-n {inner} addr add {_OWN}/30 dev a{mark}",
            f"-n {outer} addr add {_GATEWAY}/30 dev b{mark}",
            *(f"-n {outer} addr add {address}/32 dev b{mark}" for address in addresses),
            f"-n {inner} link set lo up",
            f"-n {outer} link set lo up",
            f"-n {inner} link set a{mark} up",
            f"-n {outer} link set b{mark} up",
            f"-n {inner} route add default via {_GATEWAY}",
        ):
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        yield inner, outer
    finally:
        for name in (inner, outer):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _listening(namespace: str, address: str, port: int) -> socket.socket:
    """A socket that listens in another network namespace, where it was made by a thread that had entered it."""
    made: list[socket.socket] = []

    def make() -> None:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((address, port)))
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].setblocking(False)
    return made[0]
