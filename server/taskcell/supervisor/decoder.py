"""Decodes the supervisor's frames. No I/O: bytes in, events out.

Bytes from inside a container are hostile: `Decoder` checks every length before it allocates, and raises nothing but
`ProtocolError`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from taskcell.errors import ProtocolError
from taskcell.supervisor import events
from taskcell.supervisor.protocol import (
    COUNT,
    HEADER,
    MAX_FROM_SUPERVISOR,
    MIN_LENGTH,
    UNKNOWN_COUNT,
    FailedStage,
    Loopback,
    ProcessState,
    Reason,
    Stream,
    WelcomeFlag,
)

#: The numbers at the front of a frame's body, and of each process in a LISTING.
_NUMBER = struct.Struct("<I")
_PLACE = struct.Struct("<Q")
_WELCOME = struct.Struct("<IBQIQ")
_FAILED = struct.Struct("<BI")
_OUTPUT = struct.Struct("<BQ")
_EXIT = struct.Struct("<BiBIQQQQQQIII")
_KILLED = struct.Struct("<BIQQ")
_LISTING = struct.Struct("<BI")
_LISTED = struct.Struct("<IBIQQQQQBiBIQII")
_DATA = struct.Struct("<BQQQ")
_LISTENING = struct.Struct("<HBI")
_CUT_SHORT = "a frame from the supervisor is cut short"


class _Body:
    """Reads one frame's body from the front; running over its end is a ProtocolError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        at = self._at
        end = at + layout.size
        if end > len(self._data):
            raise ProtocolError(_CUT_SHORT)
        self._at = end
        return layout.unpack_from(self._data, at)

    def string(self) -> bytes:
        (length,) = self.unpack(COUNT)
        end = self._at + length
        if end > len(self._data):
            raise ProtocolError("a string from the supervisor is longer than its frame")
        value = bytes(self._data[self._at : end])
        self._at = end
        return value

    def rest(self) -> bytes:
        value = bytes(self._data[self._at :])
        self._at = len(self._data)
        return value

    def done(self) -> None:
        if self._at != len(self._data):
            raise ProtocolError("a frame from the supervisor has bytes left over")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _processes(count: int) -> int | None:
    return None if count == UNKNOWN_COUNT else count


def _parse_exit(process: int, body: _Body) -> events.Exit:
    reason, code, signo, oom, duration, user, system, rss, *totals, descendants, refused, size = body.unpack(_EXIT)
    out_total, err_total = totals
    return events.Exit(
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
        _processes(descendants),
        refused,
        size,
        body.rest(),
    )


def _parse_state(process: int, body: _Body) -> events.LastState:
    tag, (size,) = body.string(), body.unpack(COUNT)
    return events.LastState(process, tag, size, body.rest())


def _parse_listing(process: int, body: _Body) -> events.Listing:
    is_last, count = body.unpack(_LISTING)
    entries = []
    for _ in range(count):
        numbers = body.unpack(_LISTED)
        number, state, pid, age, out_start, out_total, err_start, err_total = numbers[:8]
        reason, code, signo, oom, duration, survivors, alive = numbers[8:]
        entries.append(
            events.ListedProcess(
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
                _processes(survivors),
                _processes(alive),
                body.string(),
            )
        )
    return events.Listing(process, bool(is_last), tuple(entries))


def _parse_killed(process: int, body: _Body) -> events.Killed:
    reason, survivors, out_total, err_total = body.unpack(_KILLED)
    return events.Killed(process, Reason(reason), _processes(survivors), out_total, err_total)


def _parse_output(process: int, body: _Body) -> events.Output:
    stream, offset = body.unpack(_OUTPUT)
    return events.Output(process, Stream(stream), offset, body.rest())


def _parse_data(process: int, body: _Body) -> events.Data:
    stream, start, total, offset = body.unpack(_DATA)
    return events.Data(process, Stream(stream) if stream else None, start, total, offset, body.rest())


def _parse_failed(process: int, body: _Body) -> events.Failed:
    stage, errno = body.unpack(_FAILED)
    return events.Failed(process, FailedStage(stage), errno, _text(body.string()))


def _parse_welcome(process: int, body: _Body) -> events.Welcome:
    version, flags, uptime, session, place = body.unpack(_WELCOME)
    return events.Welcome(process, version, WelcomeFlag(flags & 7), uptime, session, place)


def _parse_listening(process: int, body: _Body) -> events.Listening:
    port, addresses, errno = body.unpack(_LISTENING)
    return events.Listening(process, port, Loopback(addresses & 3), errno)


_PARSERS: dict[int, Callable[[int, _Body], events.Event]] = {
    0x81: _parse_welcome,
    0x82: lambda process, body: events.Spawned(process, *body.unpack(_NUMBER)),
    0x83: _parse_failed,
    0x84: _parse_output,
    0x85: lambda process, body: events.StdinAck(process, *body.unpack(_NUMBER)),
    0x86: _parse_exit,
    0x87: _parse_killed,
    0x88: lambda process, body: events.Gone(process),
    0x89: _parse_listing,
    0x8A: lambda process, body: events.Pong(process),
    0x8B: lambda process, body: events.Error(process, _text(body.string())),
    0x8C: _parse_data,
    0x8D: lambda process, body: events.Sudo(process, _text(body.string())),
    0x8E: _parse_state,
    0x8F: _parse_listening,
    0x90: lambda tunnel, body: events.TunnelOpened(tunnel, *body.unpack(_NUMBER)),
    0x91: lambda tunnel, body: events.TunnelData(tunnel, body.rest()),
    0x92: lambda tunnel, body: events.TunnelCredit(tunnel, *body.unpack(_NUMBER)),
    0x93: lambda tunnel, body: events.TunnelEnd(tunnel),
    0x94: lambda tunnel, body: events.TunnelReset(tunnel, *body.unpack(_NUMBER)),
    0x95: lambda process, body: events.Acknowledged(process, *body.unpack(_PLACE)),
}


def _frame_size(data: bytearray | memoryview) -> int | None:
    """The bytes of the frame at the front; None when its header is not there yet. Raises ProtocolError."""
    if len(data) < HEADER.size:
        return None
    (length,) = _NUMBER.unpack_from(data)
    if not MIN_LENGTH <= length <= MAX_FROM_SUPERVISOR:
        raise ProtocolError(f"the supervisor sent a frame of {length} bytes")
    return _NUMBER.size + int(length)


def _parse(frame: memoryview) -> events.Event:
    _, kind, process = HEADER.unpack_from(frame)
    parser = _PARSERS.get(kind)
    if parser is None:
        raise ProtocolError(f"the supervisor sent a frame of the unknown type {kind:#x}")
    body = _Body(frame[HEADER.size :])
    try:
        event = parser(process, body)
    except ValueError as error:  # a number outside its enum
        raise ProtocolError(f"the supervisor sent a bad value: {error}") from None
    body.done()
    return event


class Decoder:
    """Turns the supervisor's bytes into events. After a ProtocolError it must not be used again.

    A frame that comes in one piece is parsed where it is: files that pass by are copied once.
    """

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> Iterator[events.Event]:
        """Take bytes and yield each complete event. Raises ProtocolError on anything not in `docs/protocol.md`."""
        view = memoryview(data)
        if self._begun:
            view = self._go_on(view)
            if _frame_size(self._begun) != len(self._begun):
                return
            frame, self._begun = self._begun, bytearray()
            yield _parse(memoryview(frame))
        while (size := _frame_size(view)) is not None and size <= len(view):
            frame_view, view = view[:size], view[size:]
            yield _parse(frame_view)
        self._begun += view

    def _go_on(self, view: memoryview) -> memoryview:
        """Add what belongs to the frame that has begun, and return the rest."""
        for _ in ("header", "body"):
            missing = (_frame_size(self._begun) or HEADER.size) - len(self._begun)
            self._begun += view[:missing]
            view = view[missing:]
        return view
