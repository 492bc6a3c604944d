"""The supervisor's wire format, without any I/O: bytes in, frames out, and back.

`docs/protocol.md` is the reference. What comes from inside a container is hostile: `Decoder` bounds every length
before it allocates, and raises nothing but `ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from taskcell.errors import ProtocolError

VERSION = 2
#: Frame limits of `docs/protocol.md`; the length counts type, process and body.
MAX_TO_SUPERVISOR = 1 << 20
MAX_FROM_SUPERVISOR = 1 << 17
MIN_LENGTH = 5
#: The server may have this many bytes of stdin unacknowledged for a process.
STDIN_WINDOW = 1 << 16
STDIN_CHUNK = 1 << 16
#: Bytes of a process's tag, and of one READ's answer.
TAG_MAX = 1024
READ_MAX = 1 << 16
#: As the cursor of a READ: the last bytes.
FROM_THE_END = (1 << 64) - 1

_HEADER = struct.Struct("<IBI")


class Stream(IntEnum):
    STDOUT = 1
    STDERR = 2


class Reason(IntEnum):
    """Why a main process ended."""

    ITSELF = 0
    TIMEOUT = 1
    KILL = 2


class SpawnFlag(IntFlag):
    NONE = 0
    STDIN = 1
    MERGE_STDERR = 2
    PTY = 4
    REPORT_STATE = 8


class SudoFlag(IntFlag):
    NONE = 0
    SET_PASSWORD = 1


class WelcomeFlag(IntFlag):
    CHANGES_USER = 1
    IS_PID_1 = 2
    FIRST_CLAIM = 4


class ProcessState(IntEnum):
    RUNNING = 0
    EXITED = 1
    GONE = 2


class Request(IntEnum):
    HELLO = 0x01
    SPAWN = 0x02
    STDIN = 0x03
    STDIN_EOF = 0x04
    SIGNAL = 0x05
    KILL = 0x06
    CREDIT = 0x07
    ATTACH = 0x08
    LIST = 0x09
    FORGET = 0x0A
    RESIZE = 0x0B
    PING = 0x0C
    SHUTDOWN = 0x0D
    READ = 0x0E
    SUDO = 0x0F
    STATE = 0x10
    NO_REPORT = 0x11


class FailedStage(IntEnum):
    """What could not be done when a process was to be started."""

    REQUEST = 1
    FORK = 2
    USER = 3
    CWD = 4
    EXEC = 5
    PTY = 6


# --- to the supervisor ------------------------------------------------------------------------------------------


def _frame(kind: Request, process: int, body: bytes = b"") -> bytes:
    length = MIN_LENGTH + len(body)
    if length > MAX_TO_SUPERVISOR:
        raise ProtocolError(f"a {kind.name} request of {length} bytes is over the limit of {MAX_TO_SUPERVISOR}")
    return _HEADER.pack(length, kind, process) + body


def _str(value: bytes) -> bytes:
    if b"\0" in value:
        raise ProtocolError("a string for the supervisor holds a NUL byte")
    return struct.pack("<I", len(value)) + value


def _list(values: Sequence[bytes]) -> bytes:
    return struct.pack("<I", len(values)) + b"".join(map(_str, values))


def hello(token: bytes, orphan_ttl_ms: int) -> bytes:
    """The first frame of a connection. `token` is 16 to 64 bytes without NUL; 0 ms means no dead-man's switch."""
    return _frame(Request.HELLO, 0, struct.pack("<I", VERSION) + _str(token) + struct.pack("<I", orphan_ttl_ms))


@dataclass(frozen=True, slots=True)
class Spawn:
    """What to start. Times in milliseconds, `spool` and `credit` in bytes; `timeout_ms` 0 means none.

    `tag` is what a later server is told of the process: at most TAG_MAX bytes.
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


def spawn(process: int, request: Spawn) -> bytes:
    """Encode a SPAWN. Raises ProtocolError when it is larger than one frame may be or holds a NUL byte."""
    r = request
    env = [key + b"=" + value for key, value in r.env.items()]
    body = struct.pack("<B", r.flags) + _str(r.user)
    body += struct.pack("<QIQQHH", r.timeout_ms, r.grace_ms, r.spool, r.credit, r.rows, r.cols)
    return _frame(Request.SPAWN, process, body + _str(r.cwd) + _list(r.argv) + _list(env) + _str(r.tag))


def stdin(process: int, data: bytes) -> bytes:
    """Up to STDIN_CHUNK bytes for the process's standard input."""
    return _frame(Request.STDIN, process, data)


def stdin_eof(process: int) -> bytes:
    return _frame(Request.STDIN_EOF, process)


def signal(process: int, number: int) -> bytes:
    return _frame(Request.SIGNAL, process, struct.pack("<B", number))


def kill(process: int, grace_ms: int) -> bytes:
    """Kill the process's whole tree; process 0 means every process of the sandbox."""
    return _frame(Request.KILL, process, struct.pack("<I", grace_ms))


def credit(process: int, stream: Stream, amount: int) -> bytes:
    return _frame(Request.CREDIT, process, struct.pack("<BQ", stream, amount))


def attach(process: int, stream: Stream, cursor: int, amount: int) -> bytes:
    return _frame(Request.ATTACH, process, struct.pack("<BQQ", stream, cursor, amount))


def read(process: int, stream: Stream, cursor: int, size: int) -> bytes:
    """Ask for at most READ_MAX kept bytes from `cursor` on, or with FROM_THE_END for the last ones."""
    return _frame(Request.READ, process, struct.pack("<BQI", stream, cursor, size))


def state() -> bytes:
    """Ask for the last state report that counts."""
    return _frame(Request.STATE, 0)


def no_report(process: int) -> bytes:
    """The process's state report shall not count: it goes on in the background."""
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
        capabilities: what those who become root may hold, a bit for each.
        flags: SET_PASSWORD gives the user this password first.
    """
    return _frame(Request.SUDO, 0, struct.pack("<BQ", flags, capabilities) + _str(user) + _str(password))


# --- from the supervisor ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    process: int
    version: int
    flags: WelcomeFlag
    uptime_ms: int


@dataclass(frozen=True, slots=True)
class Spawned:
    process: int
    pid: int


@dataclass(frozen=True, slots=True)
class Failed:
    process: int
    stage: FailedStage
    errno: int
    message: str


@dataclass(frozen=True, slots=True)
class Output:
    process: int
    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StdinAck:
    process: int
    count: int


@dataclass(frozen=True, slots=True)
class Exit:
    process: int
    reason: Reason
    exit_code: int
    signal: int
    oom_kills: int
    duration_us: int
    user_us: int
    system_us: int
    max_rss_kb: int
    stdout_total: int
    stderr_total: int
    descendants: int
    cwd: bytes
    env: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Killed:
    process: int
    reason: Reason
    survivors: int
    stdout_total: int
    stderr_total: int


@dataclass(frozen=True, slots=True)
class Gone:
    process: int


@dataclass(frozen=True, slots=True)
class Listed:
    process: int
    state: ProcessState
    pid: int
    age_ms: int
    stdout_start: int
    stdout_total: int
    stderr_start: int
    stderr_total: int
    reason: Reason
    exit_code: int
    signal: int
    oom_kills: int
    duration_us: int
    survivors: int
    tag: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of the list; `is_last` says that it is complete with it."""

    process: int
    is_last: bool
    entries: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of what is kept of a stream: bytes `start` to `total`. `stream` None: there is no such process."""

    process: int
    stream: Stream | None
    start: int
    total: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class State:
    """The state report of the last process that ended by itself, with that process's tag; all empty without one."""

    process: int
    tag: bytes
    cwd: bytes
    env: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pong:
    process: int


@dataclass(frozen=True, slots=True)
class Error:
    process: int
    message: str


@dataclass(frozen=True, slots=True)
class Sudo:
    """Whether sudo is ready: `problem` is empty then."""

    process: int
    problem: str


Event = (
    Welcome | Spawned | Failed | Output | StdinAck | Exit | Killed | Gone | Listing | Data | State | Pong | Error | Sudo
)


class _Body:
    """Reads one frame's body from the front; running over its end is a ProtocolError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> tuple[int, ...]:
        layout = struct.Struct("<" + form)
        end = self._at + layout.size
        if end > len(self._data):
            raise ProtocolError("a frame from the supervisor is cut short")
        values = layout.unpack_from(self._data, self._at)
        self._at = end
        return values

    def string(self) -> bytes:
        (length,) = self.unpack("I")
        if length > len(self._data) - self._at:
            raise ProtocolError("a string from the supervisor is longer than its frame")
        value = bytes(self._data[self._at : self._at + length])
        self._at += length
        return value

    def strings(self) -> tuple[bytes, ...]:
        (count,) = self.unpack("I")
        if count * 4 > len(self._data) - self._at:
            raise ProtocolError("a list from the supervisor is longer than its frame")
        return tuple(self.string() for _ in range(count))

    def rest(self) -> bytes:
        value = bytes(self._data[self._at :])
        self._at = len(self._data)
        return value

    def done(self) -> None:
        if self._at != len(self._data):
            raise ProtocolError("a frame from the supervisor has bytes left over")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _parse_exit(process: int, body: _Body) -> Exit:
    reason, code, signo, oom = body.unpack("BiBI")
    duration, user, system, rss, out_total, err_total, descendants = body.unpack("QQQQQQI")
    return Exit(
        process,
        Reason(reason),
        code,
        signo,
        oom,
        duration,
        user,
        system,
        rss,
        out_total,
        err_total,
        descendants,
        body.string(),
        body.strings(),
    )


def _parse_listing(process: int, body: _Body) -> Listing:
    is_last, count = body.unpack("BI")
    entries = []
    for _ in range(count):
        number, state, pid, age, out_start, out_total, err_start, err_total = body.unpack("IBIQQQQQ")
        reason, code, signo, oom, duration, survivors = body.unpack("BiBIQI")
        entries.append(
            Listed(
                number,
                ProcessState(state),
                pid,
                age,
                out_start,
                out_total,
                err_start,
                err_total,
                Reason(reason),
                code,
                signo,
                oom,
                duration,
                survivors,
                body.string(),
            )
        )
    return Listing(process, bool(is_last), tuple(entries))


def _parse_killed(process: int, body: _Body) -> Killed:
    reason, survivors, out_total, err_total = body.unpack("BIQQ")
    return Killed(process, Reason(reason), survivors, out_total, err_total)


def _parse_output(process: int, body: _Body) -> Output:
    stream, offset = body.unpack("BQ")
    return Output(process, Stream(stream), offset, body.rest())


def _parse_data(process: int, body: _Body) -> Data:
    stream, start, total, offset = body.unpack("BQQQ")
    return Data(process, Stream(stream) if stream else None, start, total, offset, body.rest())


def _parse_failed(process: int, body: _Body) -> Failed:
    stage, errno = body.unpack("BI")
    return Failed(process, FailedStage(stage), errno, _text(body.string()))


def _parse_welcome(process: int, body: _Body) -> Welcome:
    version, flags, uptime = body.unpack("IBQ")
    return Welcome(process, version, WelcomeFlag(flags & 7), uptime)


_PARSERS: dict[int, Callable[[int, _Body], Event]] = {
    0x81: _parse_welcome,
    0x82: lambda process, body: Spawned(process, *body.unpack("I")),
    0x83: _parse_failed,
    0x84: _parse_output,
    0x85: lambda process, body: StdinAck(process, *body.unpack("I")),
    0x86: _parse_exit,
    0x87: _parse_killed,
    0x88: lambda process, body: Gone(process),
    0x89: _parse_listing,
    0x8A: lambda process, body: Pong(process),
    0x8B: lambda process, body: Error(process, _text(body.string())),
    0x8C: _parse_data,
    0x8D: lambda process, body: Sudo(process, _text(body.string())),
    0x8E: lambda process, body: State(process, body.string(), body.string(), body.strings()),
}


class Decoder:
    """Turns the supervisor's bytes into events. After a ProtocolError it must not be used again."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes; yield each event that is whole. Raises ProtocolError on anything not in `docs/protocol.md`."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER.size:
                length, kind, process = _HEADER.unpack_from(self._buffer, at)
                if not MIN_LENGTH <= length <= MAX_FROM_SUPERVISOR:
                    raise ProtocolError(f"the supervisor sent a frame of {length} bytes")
                if len(self._buffer) - at < 4 + length:
                    break
                start, at = at + _HEADER.size, at + 4 + length
                yield self._parse(kind, process, bytes(self._buffer[start:at]))
        finally:
            del self._buffer[:at]

    @staticmethod
    def _parse(kind: int, process: int, data: bytes) -> Event:
        parser = _PARSERS.get(kind)
        if parser is None:
            raise ProtocolError(f"the supervisor sent a frame of the unknown type {kind:#x}")
        body = _Body(memoryview(data))
        try:
            event = parser(process, body)
        except ValueError as error:  # a number outside its enum
            raise ProtocolError(f"the supervisor sent a bad value: {error}") from None
        body.done()
        return event
