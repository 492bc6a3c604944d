"""Log to standard error alone, one line for each event, without ever blocking the server."""

from __future__ import annotations

import io
import logging
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, cast

from taskcell.text import plain_line

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

#: A pipe that is ready takes at least this many bytes without blocking (POSIX's PIPE_BUF on Linux).
_PIPE_BUF = 4096
#: Libraries whose debug lines hold messages, and so the arguments of calls, which may be secret.
_TALKATIVE = ("mcp", "docker", "urllib3", "asyncio", "httpx2", "httpcore2", "uvicorn", "sse_starlette", "websockets")


class StderrWriter:
    """Writes whole lines to a descriptor; drops and counts them while its reader does not read.

    Otherwise a client that starts the server with a pipe for stderr, and never reads it, would stop it for good.
    """

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._dropped = 0

    def write(self, text: str) -> int:
        """Write one line or more, or drop them. Returns their length in characters in both cases."""
        if self._dropped and self._put(f"[{self._dropped} log lines were dropped: standard error was not read]\n"):
            self._dropped = 0
        if not self._put(text):
            self._dropped += 1
        return len(text)

    def _put(self, text: str) -> bool:
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        try:
            while data:
                if not self._ready():
                    return False
                data = data[os.write(self._fd, data[:_PIPE_BUF]) :]
        except OSError:
            return False
        return True

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def flush(self) -> None:
        """Do nothing: no line is held back."""


@dataclass(frozen=True, slots=True)
class _Quoted:
    """A text that its line shows quoted, without what would break the line or command a terminal."""

    text: str

    def __repr__(self) -> str:
        return plain_line(repr(self.text))


def _plain(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape foreign words: clients and sandboxes choose some, and a person reads the log on a terminal."""
    event["event"] = plain_line(str(event["event"]))
    for name, value in event.items():
        if isinstance(value, str) and plain_line(value) != value:
            event[name] = _Quoted(value)
    return event


def _plain_traceback(out: TextIO, error: ExcInfo) -> None:
    """Write a traceback whose lines are indented, so that none can be taken for an event."""
    import structlog

    whole = io.StringIO()
    structlog.dev.plain_traceback(whole, error)
    out.writelines(f"\n  {plain_line(line)}" for line in whole.getvalue().strip("\n").split("\n"))


def configure(level: str = "info", *, fd: int = 2) -> None:
    """Send all logging, structlog's and the standard library's, to one descriptor.

    Arguments:
        level: debug, info, warning or error; the libraries' own lines come from `warning` on.
        fd: where lines go; standard error.
    """
    import structlog

    number = logging.getLevelNamesMapping()[level.upper()]
    stream = cast(TextIO, StderrWriter(fd))  # loggers use write and flush alone
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _plain,
    ]
    renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(fd), exception_formatter=_plain_traceback, pad_event_to=0)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _FirstLine(logging.Handler):
    """Configures the log at the first line of the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        configure_now()
        logging.getLogger(record.name).handle(record)


_postponed: Callable[[], None] | None = None


def configure_later(level: str) -> None:
    """Do what `configure` does at the first line, or when `configure_now` is called; until then use a `Logger`.

    Importing what writes lines takes a tenth of a start, and its client waits for that.
    """
    global _postponed  # noqa: PLW0603 - as logging itself is of the process
    _postponed = partial(configure, level)
    logging.basicConfig(handlers=[_FirstLine()], level=logging.WARNING, force=True)


def configure_now() -> None:
    """Do what was postponed; nothing if nothing was."""
    global _postponed
    postponed, _postponed = _postponed, None
    if postponed is not None:
        postponed()


class Logger:
    """A structlog logger that is imported when it writes its first line.

    Arguments:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        configure_now()
        import structlog

        write: Callable[..., Any] = getattr(structlog.get_logger(self._name), method)
        return write
