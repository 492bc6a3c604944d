"""A command that runs in a task, and how it has ended."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, Literal

import anyio
import anyio.to_thread

from taskcell.client.beside import beside
from taskcell.client.failures import (
    ArgumentError,
    CellError,
    DeniedError,
    ForbiddenError,
    LostError,
    NotFoundError,
    error_of,
)
from taskcell.client.wire import ServerClient, frames, task_path

BytesLike = bytes | bytearray | memoryview
#: A line for the task's shell, or a program and its arguments.
CommandLine = str | Sequence[str | bytes | os.PathLike[str]]
Stdin = BytesLike | Iterable[BytesLike] | AsyncIterable[BytesLike]
#: Input that is sent with the command itself, in bytes; more is sent beside it. Less where the command may outlive its
#: server: what goes with its start has come if it has started.
INLINE_STDIN, INLINE_LINGERING = 256 << 10, 64 << 10
#: Seconds between two attempts to take a command up, and for one that its block leaves to be killed.
TAKE_UP_TURN, LEAVE_PATIENCE = 0.5, 10.0
_NAMES: Mapping[int, Literal["stdout", "stderr"]] = {1: "stdout", 2: "stderr"}


class CommandFailed(Exception):
    """A command's exit code is not 0, or it did not end by itself. `done` says how it ended."""

    def __init__(self, done: Done) -> None:
        last = done.stderr[-500:].decode("utf-8", "replace").strip()
        super().__init__(f"The command {done.status} with {done.exit_code}" + (f": {last}" if last else ""))
        self.done = done

    def __reduce__(self) -> tuple[type[CommandFailed], tuple[Done]]:
        return type(self), (self.done,)


@dataclass(frozen=True, slots=True)
class Done:
    """How a command has ended, and what it wrote.

    Arguments:
        status: `exited`, `timed_out`, `killed`, `oom_killed`, `cancelled`.
        exit_code: its own, or 128 and the number of the signal that ended it, or 124 for a time-out.
        signal: the name of that signal, such as `SIGSEGV`; None if it ended by itself.
        duration: seconds.
        survivors: processes that a kill could not end; None if that is unknown.
        left: processes that it started and that still run; None if that is unknown.
    """

    status: str
    exit_code: int
    signal: str | None = None
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    duration: float = 0.0
    survivors: int | None = 0
    left: int | None = 0
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "exited" and self.exit_code == 0

    def check(self) -> Done:
        """Return this, or raise CommandFailed unless the command exited with 0."""
        if not self.ok:
            raise CommandFailed(self)
        return self


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Some bytes of one stream of a command, as it wrote them."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class RunningCommand:
    """A command that runs. Iterate over its output as it comes; `wait` for its end."""

    def __init__(
        self, wire: ServerClient, task: str, received: AsyncGenerator[tuple[int, bytes], None], linger: float
    ) -> None:
        self._wire = wire
        self._task = task
        self._linger = linger
        self._frames = received
        #: The answers after the first one.
        self.later = AsyncExitStack()
        self._had = {1: 0, 2: 0}
        self._ended: dict[str, Any] | None = None
        self._done: Done | None = None
        self._is_left = False
        self.id = ""
        self.notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} of task {self._task!r}>"

    async def begin(self) -> None:
        """Read the first frame."""
        async for kind, data in self._frames:
            assert kind == 0
            first = json.loads(data)
            if "error" in first:
                raise error_of(first["error"])
            self.id, self.notes = str(first.get("process_id", "")), (*self.notes, *first.get("notes", ()))
            return
        raise LostError("The server went away before the command had started.")

    def __aiter__(self) -> AsyncIterator[OutputPiece]:
        return self._output()

    async def leave(self) -> None:
        """Note that its block was left, and kill it unless it has ended: one that lingers outlives its connection."""
        self._is_left = True
        if self._linger and self._ended is None:
            with anyio.move_on_after(LEAVE_PATIENCE, shield=True), suppress(CellError):
                await self._wire.json("DELETE", self._path(), task=self._task)

    def _path(self, *parts: str) -> str:
        return task_path(self._task, "processes", self.id, *parts)

    async def _output(self) -> AsyncIterator[OutputPiece]:
        if self._is_left and self._ended is None:
            raise LostError("The command was killed when its block was left; read and wait inside of that.")
        while self._ended is None:
            try:
                async for kind, data in self._frames:
                    if kind:
                        self._had[kind] += len(data)
                        yield OutputPiece(_NAMES[kind], data)
                        continue
                    fields = json.loads(data)
                    if "error" in fields:
                        raise error_of(fields["error"])
                    self._ended = fields
                    return
                raise LostError("The server went away while the command ran.")
            except LostError as error:
                if not self._linger or error.fields.get("output_lost"):
                    raise
                await self._take_up(error)

    async def _take_up(self, broken: LostError) -> None:
        """Have its output go on where a connection broke, by whichever server answers. Raises a CellError."""
        path = f"{self._path()}?stdout={self._had[1]}&stderr={self._had[2]}"
        deadline = anyio.current_time() + self._linger
        while True:
            await self.later.aclose()
            try:
                answer = await self.later.enter_async_context(self._wire.stream("GET", path, task=self._task))
                self._frames = frames(answer)
                return await self.begin()
            except NotFoundError:
                raise broken from None
            except CellError as error:
                is_final = isinstance(error, ArgumentError | DeniedError | ForbiddenError)
                if is_final or error.fields.get("output_lost"):
                    raise
                if anyio.current_time() > deadline:
                    raise broken from None
                await anyio.sleep(TAKE_UP_TURN)

    async def wait(self) -> Done:
        """Wait for its end. `stdout` and `stderr` are what was not iterated over before. Raises a CellError."""
        if self._done is None:
            held = {"stdout": BytesIO(), "stderr": BytesIO()}
            if self._ended is None:
                async for piece in self:
                    held[piece.stream].write(piece.data)
            about = self._ended or {}
            self._done = done_of(about, held["stdout"].getvalue(), held["stderr"].getvalue(), self.notes)
        return self._done

    async def write(self, data: BytesLike) -> int:
        """Send bytes to its standard input; waits until they are taken. Needs `stdin=None` at the start.

        Returns how many were taken: fewer than were given when the command has ended.
        """
        return await self._stdin(exact_bytes(data), "")

    async def close_stdin(self) -> None:
        """End its standard input."""
        await self._stdin(b"", "?end=1")

    async def feed(self, data: bytes | Iterable[BytesLike] | AsyncIterable[BytesLike]) -> None:
        """Send all of its standard input, and end it."""
        if isinstance(data, bytes):
            await self._stdin(data, "?end=1")
            return
        async for piece in data if isinstance(data, AsyncIterable) else _in_thread(data):
            await self.write(piece)
        await self.close_stdin()

    async def _stdin(self, data: bytes, query: str) -> int:
        return int((await self._wire.json("POST", self._path("stdin") + query, data, task=self._task))["size"])

    async def signal(self, name: str) -> None:
        """Send a signal, such as `SIGINT`, to its process group."""
        await self._wire.tool("process", self._task, action="signal", process_id=self.id, signal=name)

    async def kill(self) -> None:
        """Kill it, and everything that it started."""
        await self._wire.tool("process", self._task, action="kill", process_id=self.id)


def done_of(fields: Mapping[str, Any], stdout: bytes, stderr: bytes, notes: tuple[str, ...] = ()) -> Done:
    """Return how a command has ended, as the last frame of its answer says."""
    return Done(
        status=str(fields["status"]),
        exit_code=-1 if fields["exit_code"] is None else int(fields["exit_code"]),
        signal=fields["signal"],
        stdout=stdout,
        stderr=stderr,
        duration=fields["duration_ms"] / 1000,
        survivors=fields["survivors"],
        left=fields["alive"],
        notes=notes,
    )


def exact_bytes(data: BytesLike) -> bytes:
    """Return the bytes of what holds bytes. Raises TypeError for a text, whose bytes only its encoding says."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"bytes are needed, not {type(data).__name__}" + ("; encode it" if isinstance(data, str) else ""))


async def _in_thread(pieces: Iterable[BytesLike]) -> AsyncIterator[BytesLike]:
    """The pieces, each had in a thread: a file or a generator may wait, and longer than the command runs."""
    read = getattr(pieces, "read1", None)  # a file's own pieces are lines, each of which would be a request
    found: Iterator[BytesLike] = iter(pieces) if read is None else iter(partial(read, INLINE_STDIN), b"")
    while (piece := await anyio.to_thread.run_sync(next, found, None, abandon_on_cancel=True)) is not None:
        yield piece


@asynccontextmanager
async def started(
    wire: ServerClient, task: str, command: CommandLine, stdin: Stdin | None, about: Mapping[str, Any]
) -> AsyncIterator[RunningCommand]:
    """Start a command; it is killed, with everything that it started, if it runs when this is left.

    Raises TypeError: the command or its input is not made of what `Task.run` says.

    Arguments:
        about: `env`, `user`, `cwd` and `timeout`, as those of `Task.run`.
    """
    what: dict[str, Any] = {"line": command} if isinstance(command, str) else {"argv": [_word(one) for one in command]}
    if (stdin is not None and not isinstance(stdin, AsyncIterable | Iterable | bytes)) or isinstance(stdin, str):
        raise TypeError(f"stdin is bytes, or an iterable of bytes, not {type(stdin).__name__}")
    given = exact_bytes(stdin) if isinstance(stdin, bytes | bytearray | memoryview) else stdin
    is_inline = isinstance(given, bytes) and len(given) <= (INLINE_LINGERING if wire.linger else INLINE_STDIN)
    what |= {"stdin": base64.b64encode(given).decode()} if is_inline and isinstance(given, bytes) else {"input": True}
    content = json.dumps({**what, **about, **({"linger": wire.linger} if wire.linger else {})}).encode()
    async with wire.stream("POST", task_path(task, "processes"), task=task, content=content) as answer:
        process = RunningCommand(wire, task, frames(answer), wire.linger)
        await process.begin()
        try:
            if is_inline or given is None:
                yield process
                return
            async with beside(lambda: process.feed(given)):
                yield process
        finally:
            await process.leave()
            await process.later.aclose()


def _word(word: str | bytes | os.PathLike[str]) -> str:
    """Return a word as Python writes it. What is none is left to the server, which says where it stands."""
    return os.fsdecode(word) if isinstance(word, bytes | os.PathLike) else word
