"""The commands of `supervisor file`, as the file tools use them, on whatever runs them."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.limits import MAX_DECODED, MAX_ENTRIES, MAX_READ_WHOLE, MAX_RESOURCE
from taskcell.files.reply import Listed, Sample, Stored, Where, Whole, Window, parse_list, parse_read, parse_write
from taskcell.text import PATH_SHOWN, shown

_Reply = TypeVar("_Reply")
#: Runs one command with its words and standard input, and returns its reply. Raises FileRefused, SandboxLost.
Run = Callable[[Sequence[str], bytes | None], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Target:
    """A path: absolute, as answers show it, and as the command takes it, from the workspace."""

    shown: str
    inner: str

    @property
    def said(self) -> str:
        """The path as a sentence has it."""
        return shown(self.shown, PATH_SHOWN)

    def named(self, where: Where) -> Where:
        """Return which file it was; by its name alone where the sandbox does not know more."""
        return where if where.path else Where(self.shown, where.file)


@dataclass(frozen=True, slots=True)
class FileStore:
    """The files of one sandbox. Every method raises FileRefused if the sandbox refuses."""

    run: Run

    async def read(self, target: Target, first: int, lines: int, size: int) -> Whole | Sample | Window:
        """Read a small file as a whole, or at most `size` bytes of a large one's lines.

        Arguments:
            first: number of a line, from 1, or from the end, where -1 is the last.
        """
        words = ("read", str(first), str(lines), str(size), str(MAX_READ_WHOLE), target.inner)
        data = await self.run(words, None)
        return _parsed(target, lambda: parse_read("read", target.shown, data))

    async def fetch(self, target: Target, most: int = MAX_RESOURCE) -> Whole:
        """Read a whole file of at most so many bytes."""
        data = await self.run(("fetch", str(most), target.inner), None)
        what = "text" if most == MAX_DECODED else "fetch"
        reply = _parsed(target, lambda: parse_read(what, target.shown, data))
        if not isinstance(reply, Whole):
            raise _garbled(target)
        return reply

    async def write(
        self, target: Target, data: bytes, *, expected: str = "any", mode: int | None = None, append: bool = False
    ) -> Stored:
        """Replace a whole file, or append to it.

        Arguments:
            expected: what must stand there: `any`, `new` for nothing, or a Fingerprint in words.
            mode: permissions; None keeps them, and gives a new file 0644.
        """
        how = ("-" if mode is None else f"{mode:o}", "append" if append else "replace")
        reply = await self.run(("write", str(len(data)), expected, *how, target.inner), data)
        return _parsed(target, lambda: parse_write(target.shown, reply))

    async def list(
        self, target: Target, patterns: Sequence[str], *, skip: int = 0, newest_first: bool = False, usual: bool = True
    ) -> Listed:
        """List a page of the entries that match one of the patterns.

        Arguments:
            skip: entries before the page.
            usual: leave out what .gitignore files name, and folders that are heavy and seldom wanted.
        """
        how = (str(skip), str(MAX_ENTRIES), "time" if newest_first else "name", "usual" if usual else "all")
        reply = await self.run(("list", *how, target.inner, *patterns), None)
        return _parsed(target, lambda: parse_list(target.shown, reply))


def _parsed(target: Target, parse: Callable[[], _Reply]) -> _Reply:
    try:
        return parse()
    except (struct.error, IndexError):
        raise _garbled(target) from None


def _garbled(target: Target) -> FileRefused:
    return FileRefused(f"The sandbox's answer about {target.said} is garbled; try the terminal.", code=ErrorCode.LOST)
