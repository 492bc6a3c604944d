"""A server that is started for one client, and ends with it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.abc

from taskcell.client.beside import beside
from taskcell.client.failures import CellError

#: Seconds for a server to start: a cold start on a busy machine takes some. It needs no engine for that.
SERVER_START_TIMEOUT = 60.0
#: Seconds for it to close its sandboxes and end; it gives itself less.
SERVER_END_TIMEOUT = 10.0
#: Bytes of its log that an error may quote.
LOG_SHOWN = 2000


@asynccontextmanager
async def own_server(
    config: Path | str | None, options: Sequence[str], program: Path | str | None = None
) -> AsyncIterator[Path]:
    """Start a server; yield its socket. It ends when this is left, or this process does.

    Raises CellError when it does not start; the message quotes its log.

    Arguments:
        program: the `taskcell` that is started; None: that of this environment, or else the one on PATH.
    """
    words = [*_program(program), "serve", "--door", "--log-level", "warning"]
    words += [] if config is None else ["--config", str(config)]
    # Its log is this process's standard error; what it says before it serves is kept for an error.
    # A session of its own: ^C in this program's terminal is for this program, and the server goes on for it.
    starting = partial(anyio.open_process, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        server = await starting([*words, *options])
    except OSError as error:
        raise CellError(f"The server did not start: {words[0]} cannot be run ({error.strerror}).") from None
    log = _Log(server)
    async with beside(log.read):
        try:
            yield await _socket(server, log)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(server)


def _program(given: Path | str | None) -> list[str]:
    """Return the words that run `taskcell`. Raises CellError: this environment has its client alone."""
    if given is not None:
        return [str(given)]
    if importlib.util.find_spec("taskcell.cli") is not None:
        return [sys.executable, "-m", "taskcell"]
    found = shutil.which("taskcell")
    if found is None:
        raise CellError(
            "The client is installed here without a server: give `program`, the path of taskcell where it is "
            "installed, or `door` or `url` of a server that runs."
        )
    return [found]


class _Log:
    """A server's log: kept until it serves, and then passed on."""

    def __init__(self, server: anyio.abc.Process) -> None:
        self._server = server
        self._kept = bytearray()
        self.ended = anyio.Event()
        self.passes = False

    async def read(self) -> None:
        assert self._server.stderr is not None
        # It is closed below: what a killed server leaves behind may keep the other end open.
        with suppress(anyio.ClosedResourceError):
            async for data in self._server.stderr:
                if self.passes:
                    pass_log_on(data)
                else:
                    self._kept += data
        self.ended.set()

    @property
    def text(self) -> str:
        return self._kept[-LOG_SHOWN:].decode("utf-8", "replace").strip()


def pass_log_on(data: bytes) -> None:
    """Write to standard error as far as there is one: a notebook's takes text, and a daemon has none."""
    with suppress(OSError, ValueError, AttributeError):
        if hasattr(sys.stderr, "buffer"):
            sys.stderr.buffer.write(data)
        else:
            sys.stderr.write(data.decode("utf-8", "replace"))
        sys.stderr.flush()


async def _socket(server: anyio.abc.Process, log: _Log) -> Path:
    assert server.stdout is not None
    said = b""
    with anyio.move_on_after(SERVER_START_TIMEOUT):
        try:
            while not said.endswith(b"\n"):
                said += await server.stdout.receive()
        except anyio.EndOfStream:
            await log.ended.wait()
            raise CellError(f"The server did not start: {log.text or 'it said nothing'}") from None
    if not said.endswith(b"\n"):
        raise CellError(f"The server did not start within {SERVER_START_TIMEOUT:g} s: {log.text or 'it said nothing'}")
    log.passes = True
    return Path(said.decode("utf-8", "surrogateescape").rstrip("\n"))


async def _end(server: anyio.abc.Process) -> None:
    """The end of its input ends it; one that does not end is killed. Bounded."""
    assert server.stdin is not None
    await server.stdin.aclose()
    with anyio.move_on_after(SERVER_END_TIMEOUT):
        await server.wait()
    if server.returncode is None:
        server.kill()
        await server.wait()
    for stream in (server.stdout, server.stderr):
        if stream is not None:
            await stream.aclose()
