"""Says which ports commands have begun to listen on, and how a person gets there.

The kernel's table is read by the supervisor's own program, when an answer about a command that runs is made. It comes
from inside the sandbox: nothing but numbers is taken from it.
"""

from __future__ import annotations

import re
from contextlib import suppress

import anyio

from taskcell.errors import SandboxLost, SpawnFailed
from taskcell.model import LOCAL_PRINCIPAL, TaskKey
from taskcell.process.process import Process
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import protocol, requests

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
#: Bytes of a table, and its lines: sockets that listen come first.
_SIZE, _LINES = 1 << 16, 400
#: Seconds to read a table: it takes one or two milliseconds.
READ_TIMEOUT = 1.0
#: A line of a socket that listens: number, local address and port, remote address and port, state 0A.
_LISTENS = re.compile(rb"^ *\d+: [0-9A-F]{8,32}:([0-9A-F]{4}) [0-9A-F]{8,32}:0000 0A ", re.MULTILINE)
#: Ports that one note names.
MOST_PORTS = 4


def ports_in(table: bytes) -> set[int]:
    """Return the ports that a table of `/proc/net` says something listens on."""
    return {int(found[1], 16) for found in _LISTENS.finditer(table)}


async def notes_on_listening(sandbox: Sandbox, task: TaskKey) -> list[str]:
    """Return a note on ports that nobody listened on when this was last asked.

    Arguments:
        task: for the person's command. Whoever is signed in is on another machine, and names the server.
    """
    if sandbox.container.is_child or sandbox.profile.network != "none" or not sandbox.channel.living:
        return []  # another network than the task's own, or nothing that could listen
    found: set[int] = set()
    with suppress(SandboxLost, SpawnFailed), anyio.move_on_after(READ_TIMEOUT):
        for table in _TABLES:
            found |= ports_in(await _read(sandbox, table))
    if sandbox.egress is not None:
        found.discard(sandbox.egress.port)
    new, sandbox.listening = sorted(found - sandbox.listening), found
    if not new:
        return []
    named = ", ".join(map(str, new[:MOST_PORTS])) + (" and more" if len(new) > MOST_PORTS else "")
    shown = task.task if re.fullmatch(r"[\w.:/@+-]+", task.task, re.ASCII) else "TASK"
    where = "" if task.principal == LOCAL_PRINCIPAL else " --http URL"
    return [
        f"Something listens on port {named} in the sandbox: commands reach it at localhost, and the person by running "
        f"`taskcell forward {shown} {new[0]}{where}` on their machine."
    ]


async def _read(sandbox: Sandbox, table: str) -> bytes:
    """What the supervisor's program says about a file. Raises SandboxLost, SpawnFailed."""
    container, process = sandbox.container, Process(sandbox.channel, _SIZE)
    words = (container.supervisor, "file", "read", "1", str(_LINES), str(_SIZE), str(_SIZE), table)
    request = requests.Spawn(
        argv=[word.encode() for word in words],
        env={},
        cwd=b"/",
        user=b"" if container.user is None else container.user.encode(),
        flags=protocol.SpawnFlag.NONE,
        timeout_ms=round(READ_TIMEOUT * 1000),
        grace_ms=0,
        spool=2 * _SIZE,
        credit=2 * _SIZE,
    )
    try:
        await process.start(lambda _: request)
        await process.finished()
    finally:
        process.close()
    return process.stdout.held
