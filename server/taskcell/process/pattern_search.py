"""Search texts for a regular expression that came with a call, without trust in how long that takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from taskcell.errors import BadArgument, EngineError

_PROGRAM = Path(__file__).with_name("pattern_program.py")
#: Seconds for a reply, the program's start included: it has one second of processor time, and others may need the
#: processor too.
REPLY_TIMEOUT = 15.0
#: Seconds to reap the program after SIGKILL, which it cannot ignore.
REAP_TIMEOUT = 2.0
_REPLY_MAX = 4096


class PatternSearch:
    """A regular expression as Python's `re` reads it, with `^` and `$` for each line. Use as an async context manager.

    Entering raises BadArgument if the pattern is broken, and EngineError if the host cannot start a process.

    Arguments:
        name: the argument that the pattern came in, for errors.
    """

    def __init__(self, name: str, pattern: str) -> None:
        self._name = name
        self._pattern = pattern
        self._program: anyio.abc.Process | None = None
        self._received = b""
        self._is_gone = False

    async def __aenter__(self) -> Self:
        argv = [sys.executable, "-I", "-S", str(_PROGRAM)]
        try:
            self._program = await anyio.open_process(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={})
        except OSError as error:
            reason = f"The host could not start the search for '{self._name}' ({error.strerror}); call again later."
            raise EngineError(reason) from None
        try:
            reply = await self._ask(self._pattern)
            if isinstance(reply, str):
                raise BadArgument(f"'{self._name}' is not a regular expression: {reply}.")
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        program = self._program
        if program is None:
            return
        with anyio.move_on_after(REAP_TIMEOUT, shield=True):
            if not self._is_gone:
                program.kill()
            await program.wait()
            await program.aclose()

    async def search(self, text: str) -> tuple[int, int] | None:
        """Return start and end of the first match. Raises BadArgument if the pattern takes too long or too much."""
        found = await self._ask(text)
        if isinstance(found, str):
            raise BadArgument(f"'{self._name}' cannot be searched for: {found}; write a simpler pattern.")
        return None if found is None else (found[0], found[1])

    async def _ask(self, text: str) -> str | list[int] | None:
        assert self._program is not None
        assert self._program.stdin is not None
        data = text.encode("utf-8", "replace")
        try:
            with anyio.fail_after(REPLY_TIMEOUT):
                await self._program.stdin.send(len(data).to_bytes(4, "little") + data)
                reply: str | list[int] | None = json.loads(await self._line())
                return reply
        except (TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
            self._is_gone = not isinstance(error, TimeoutError)
            raise BadArgument(f"'{self._name}' takes too long to search for; write a simpler pattern.") from None

    async def _line(self) -> bytes:
        assert self._program is not None
        assert self._program.stdout is not None
        while b"\n" not in self._received:
            self._received += await self._program.stdout.receive(_REPLY_MAX)
        line, _, self._received = self._received.partition(b"\n")
        return line
