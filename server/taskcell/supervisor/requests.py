"""Encodes the requests to the supervisor, one function for each. No I/O: values in, bytes out."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskcell.errors import ProtocolError
from taskcell.supervisor.protocol import (
    COUNT,
    HEADER,
    MAX_TO_SUPERVISOR,
    MIN_LENGTH,
    VERSION,
    Reason,
    Request,
    SpawnFlag,
    Stream,
    SudoFlag,
)

_SPAWN_FLAGS = struct.Struct("<H")
_SPAWN_NUMBERS = struct.Struct("<QIQQHH")


def _frame(kind: Request, process: int, body: bytes = b"") -> bytes:
    length = MIN_LENGTH + len(body)
    if length > MAX_TO_SUPERVISOR:
        raise ProtocolError(f"a {kind.name} request of {length} bytes is over the limit of {MAX_TO_SUPERVISOR}")
    return HEADER.pack(length, kind, process) + body


def _strings(*values: bytes) -> bytes:
    if b"\0" in b"".join(values):
        raise ProtocolError("a string for the supervisor holds a NUL byte")
    return b"".join([COUNT.pack(len(value)) + value for value in values])


def _list(values: Sequence[bytes]) -> bytes:
    return COUNT.pack(len(values)) + _strings(*values)


def hello(token: bytes, orphan_ttl_ms: int, session: int = 0, received: int = 0) -> bytes:
    """Encode a connection's first frame.

    Arguments:
        token: 16 to 64 bytes, no NUL.
        orphan_ttl_ms: how long the supervisor lives without a byte from a server; 0 means for ever.
        session: number of the session to go on with; 0 begins one.
        received: bytes of that session that have come.
    """
    numbers = struct.pack("<IIQ", orphan_ttl_ms, session, received)
    return _frame(Request.HELLO, 0, struct.pack("<I", VERSION) + _strings(token) + numbers)


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to start. Times in milliseconds, `spool` and `credit` in bytes; `timeout_ms` 0 means none.

    `tag` has at most TAG_MAX bytes; a later server gets it back.
    """

    argv: Sequence[bytes]
    env: Mapping[bytes, bytes]
    cwd: bytes
    user: bytes = b""
    flags: SpawnFlag = SpawnFlag.NONE
    timeout_ms: int = 0
    grace_ms: int = 2000
    spool: int = 1 << 24
    credit: int = 0
    rows: int = 24
    cols: int = 80
    tag: bytes = b""
    prologue: bytes = b""


def spawn(process: int, request: Spawn) -> bytes:
    """Encode a SPAWN. Raises ProtocolError if it exceeds one frame or a string holds a NUL byte."""
    r = request
    env = [key + b"=" + value for key, value in r.env.items()]
    body = (
        _SPAWN_FLAGS.pack(r.flags),
        _strings(r.user),
        _SPAWN_NUMBERS.pack(r.timeout_ms, r.grace_ms, r.spool, r.credit, r.rows, r.cols),
        _strings(r.cwd),
        _list(r.argv),
        _list(env),
        _strings(r.tag, r.prologue),
    )
    return _frame(Request.SPAWN, process, b"".join(body))


def stdin(process: int, data: bytes | memoryview) -> bytes:
    """Send up to STDIN_CHUNK bytes to the process's standard input."""
    return HEADER.pack(MIN_LENGTH + len(data), Request.STDIN, process) + data


def stdin_eof(process: int) -> bytes:
    return _frame(Request.STDIN_EOF, process)


def signal(process: int, number: int) -> bytes:
    return _frame(Request.SIGNAL, process, struct.pack("<B", number))


def kill(process: int, grace_ms: int, reason: Reason = Reason.KILL) -> bytes:
    """Kill the process's whole tree; process 0 means every process of the sandbox.

    Arguments:
        reason: KILL, or CANCEL, which are told apart in EXIT and LISTING.
    """
    return _frame(Request.KILL, process, struct.pack("<IB", grace_ms, reason))


def credit(process: int, stream: Stream, amount: int) -> bytes:
    return _frame(Request.CREDIT, process, struct.pack("<BQ", stream, amount))


def attach(process: int, stream: Stream, cursor: int, amount: int) -> bytes:
    return _frame(Request.ATTACH, process, struct.pack("<BQQ", stream, cursor, amount))


def read(process: int, stream: Stream, cursor: int, size: int) -> bytes:
    """Ask for at most READ_MAX kept bytes from `cursor` on, or for the last ones with FROM_THE_END."""
    return _frame(Request.READ, process, struct.pack("<BQI", stream, cursor, size))


def state(offset: int = 0) -> bytes:
    """Ask for a piece of the last state report that counts, from so many bytes on."""
    return _frame(Request.STATE, 0, struct.pack("<I", offset))


def no_report(process: int) -> bytes:
    """Have the process's state report not count: it goes on in the background."""
    return _frame(Request.NO_REPORT, process)


def list_processes() -> bytes:
    return _frame(Request.LIST, 0)


def forget(process: int) -> bytes:
    return _frame(Request.FORGET, process)


def resize(process: int, rows: int, cols: int) -> bytes:
    return _frame(Request.RESIZE, process, struct.pack("<HH", rows, cols))


def ping() -> bytes:
    return _frame(Request.PING, 0)


def shutdown(grace_ms: int) -> bytes:
    return _frame(Request.SHUTDOWN, 0, struct.pack("<I", grace_ms))


def sudo(user: bytes, password: bytes, capabilities: int, flags: SudoFlag) -> bytes:
    """Let `user` become root by sudo with this password.

    Arguments:
        user: as in SPAWN.
        password: 1 to 255 bytes, without NUL and newline.
        capabilities: the most that a process may hold after it became root, a bit for each.
        flags: SET_PASSWORD sets this password for the user first.
    """
    return _frame(Request.SUDO, 0, struct.pack("<BQ", flags, capabilities) + _strings(user, password))


def listen_on(port: int, places: int) -> bytes:
    """Have the supervisor listen on loopback; port 0 means any. It accepts `places` connections, and then waits."""
    return _frame(Request.LISTEN, 0, struct.pack("<HI", port, places))


def accept(places: int) -> bytes:
    """Let the supervisor accept so many connections more."""
    return _frame(Request.ACCEPT, 0, struct.pack("<I", places))


def open_tunnel(tunnel: int, port: int) -> bytes:
    """Connect to a port of the sandbox's loopback. `tunnel` is below TUNNEL_ACCEPTED and not in use."""
    return _frame(Request.OPEN, tunnel, struct.pack("<H", port))


def tunnel_data(tunnel: int, data: bytes | memoryview) -> bytes:
    """Send up to TUNNEL_PIECE bytes to the program at the tunnel's end."""
    return HEADER.pack(MIN_LENGTH + len(data), Request.TUNNEL_DATA, tunnel) + data


def tunnel_credit(tunnel: int, amount: int) -> bytes:
    """Let the program at the tunnel's end send so many bytes more."""
    return _frame(Request.TUNNEL_CREDIT, tunnel, struct.pack("<I", amount))


def tunnel_end(tunnel: int) -> bytes:
    """End the bytes to the program; it may go on to send."""
    return _frame(Request.TUNNEL_END, tunnel)


def tunnel_reset(tunnel: int) -> bytes:
    return _frame(Request.TUNNEL_RESET, tunnel)


def acknowledge(received: int) -> bytes:
    """Say how many bytes of the session have come, so that the supervisor keeps them no longer."""
    return _frame(Request.ACK, 0, struct.pack("<Q", received))
