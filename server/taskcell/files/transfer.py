"""Streams files and folders of a workspace, in both directions, by `supervisor transfer` in the sandbox.

Nothing is held here but what is on its way. What comes out of the sandbox is bounded by the reader: the program in the
sandbox waits for a byte on its standard input for each further piece.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio
import anyio.abc

from taskcell.errors import ErrorCode, FileRefused, SandboxLost
from taskcell.files.apart_stream import LARGE, NO_LIMIT, STALL_TIMEOUT, TRANSFER_TIMEOUT, ApartStream
from taskcell.files.refusals import Refused, sentence
from taskcell.model import MIB, Command
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.process import Process
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import Stream
from taskcell.text import PATH_SHOWN, shown

#: Bytes that one byte of the program's standard input allows it to write, and bytes that the supervisor keeps of its
#: output: more than the four pieces that are on their way.
PIECE, KEPT_OUTPUT = 256 << 10, 2 * MIB
_HEAD = struct.Struct("<BBQQI")
_REFUSED = struct.Struct("<BBIQI")
_DONE = struct.Struct("<BQ")
#: Reasons of `supervisor transfer` alone: the path leads out of the workspace; something is wrong with the archive.
_OUTSIDE, _ARCHIVE = 20, 21
#: Bytes of a refusal: a path, and a sentence.
_MAX_REFUSAL = 8192


@dataclass(frozen=True, slots=True)
class FileHead:
    """What stands at a path. `size` in bytes, `changed` in seconds since 1970, `mode` its permissions."""

    is_folder: bool
    size: int
    changed: int
    mode: int

    def left(self, offset: int, most: int) -> int:
        """Bytes that a part of the file has."""
        return max(0, min(self.size - offset, most))


class StreamedProcess(Process):
    """A process whose standard output is handed on as it comes."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox.channel, _MAX_REFUSAL)
        self._pieces: deque[bytes] = deque()
        self._received = 0
        self._unanswered = 0

    def _take_output(self, event: events.Output) -> None:
        if event.stream is not Stream.STDOUT:
            super()._take_output(event)
        elif event.offset == self._received:
            self._received += len(event.data)
            self._pieces.append(event.data)

    async def receive(self) -> bytes:
        """The next bytes; none at the end. Raises SpawnFailed, SandboxLost."""
        while not self._pieces:
            if self.exit is not None:
                return b""
            self._check_started()
            await self._change().wait()
        data = self._pieces.popleft()
        if self._pieces and len(data) < PIECE:
            data = b"".join((data, *self._pieces))
            self._pieces.clear()
        self._unanswered += len(data)
        if self._unanswered >= PIECE and self.exit is None:
            count, self._unanswered = divmod(self._unanswered, PIECE)
            await self.input.write(b"\0" * count, STALL_TIMEOUT)
        return data

    @property
    def is_whole(self) -> bool:
        """It has ended well, and everything that it wrote came here."""
        return self.exit is not None and self.exit.exit_code == 0 and self.exit.stdout_total == self._received


class FileSource(Protocol):
    """Where the bytes of a file come from, after its head."""

    @property
    def is_whole(self) -> bool:
        """Everything came."""

    async def receive(self) -> bytes:
        """The next bytes; none at the end. Raises TaskcellError."""


class Download:
    """A file or an archive on its way out.

    Arguments:
        first: bytes that came with the head.
    """

    def __init__(self, source: FileSource, head: FileHead, first: bytes) -> None:
        self.head = head
        self._source = source
        self._first = first

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises SandboxLost, also when it breaks off."""
        if self._first:
            yield self._first
        while data := await self._source.receive():
            yield data
        if not self._source.is_whole:
            raise SandboxLost("The file changed or could not be read to its end, so its transfer broke off.")


@asynccontextmanager
async def sending(
    sandbox: Sandbox, authorized: AuthorizedCommand, how: str, offset: int = 0, length: int = NO_LIMIT
) -> AsyncIterator[Download]:
    """Open a file or folder. Raises FileRefused, SandboxLost, SpawnFailed.

    Arguments:
        how: `raw` for the bytes of a file, and the archive of a folder; `tar` for an archive; `look` for the head.
        offset, length: of the bytes of a file.
    """
    command = authorized.command
    words = ("send", how, str(offset), str(length), command.argv[-1])
    can_be_apart = sandbox.apart is not None and how == "raw"
    async with _running(sandbox, command, (*words, str(LARGE)) if can_be_apart else words) as process:
        head, first = await _begin(process, command)
        if not can_be_apart or head.is_folder or head.left(offset, length) <= LARGE:
            yield Download(process, head, first)
            return
    assert sandbox.apart is not None
    async with sandbox.apart(words) as stream:
        source = ApartStream(stream)
        head, first = await _begin(source, command)
        if head.is_folder:
            raise SandboxLost("A folder took the file's place, so its transfer broke off; ask again.")
        source.left = head.left(offset, length) - len(first)
        yield Download(source, head, first)


async def _begin(source: FileSource, command: Command) -> tuple[FileHead, bytes]:
    """Return the head, and the bytes that came with it. Raises FileRefused, SandboxLost."""
    first = b""
    while len(first) < _HEAD.size and (data := await source.receive()):
        first += data
    if first[:1] == b"\0" and len(first) >= _HEAD.size:
        _, kind, size, changed, mode = _HEAD.unpack_from(first)
        head = FileHead(kind == ord("d"), size, min(changed, 1 << 40), mode & 0o777)
        return head, first[_HEAD.size :]
    while len(first) < _MAX_REFUSAL and (data := await source.receive()):
        first += data
    raise _refusal(command, first, "read")


async def receive(
    sandbox: Sandbox, authorized: AuthorizedCommand, words: Sequence[str], body: AsyncIterator[bytes], size: int = 0
) -> int:
    """Write what comes to a file, or unpack it; return how many bytes or entries it had.

    What is cut off does not become a file. Raises FileRefused, SandboxLost, SpawnFailed, and what `body` raises.

    Arguments:
        words: of `supervisor transfer`, before the path.
        size: bytes of the file that comes; 0 where it is not known, or an archive comes.
    """
    command = authorized.command
    words = (*words, command.argv[-1])
    if sandbox.apart is not None and size > LARGE:
        async with sandbox.apart(words) as stream:
            await _fill(stream, body)
            return _taken(command, await _reply(ApartStream(stream)), is_whole=True)
    async with _running(sandbox, command, words) as process:
        async for data in body:
            if process.exit is not None:
                break
            if data and await process.input.write(data, STALL_TIMEOUT) < len(data) and process.exit is None:
                process._check_started()
                raise SandboxLost("The sandbox takes no more bytes; what came so far did not become a file.")
        if process.exit is None:
            await process.input.close(STALL_TIMEOUT, is_terminal=False)
        reply = await _reply(process)
        return _taken(command, reply, is_whole=process.is_whole)


async def _fill(stream: anyio.abc.ByteStream, body: AsyncIterator[bytes]) -> None:
    """Send what comes, until the program takes no more: it has refused then, or is gone. Raises what `body` raises."""
    async for data in body:
        try:
            with anyio.fail_after(STALL_TIMEOUT):
                await stream.send(data)
        except (TimeoutError, anyio.BrokenResourceError, OSError):
            return


async def _reply(source: FileSource) -> bytes:
    reply = b""
    while len(reply) < _MAX_REFUSAL and (data := await source.receive()):
        reply += data
    return reply


def _taken(command: Command, reply: bytes, *, is_whole: bool) -> int:
    """The count in a reply. Raises FileRefused, SandboxLost."""
    if len(reply) == _DONE.size and reply[:1] == b"\0" and is_whole:
        return int(_DONE.unpack(reply)[1])
    raise _refusal(command, reply, "written")


@asynccontextmanager
async def _running(sandbox: Sandbox, command: Command, words: Sequence[str]) -> AsyncIterator[StreamedProcess]:
    """Run the program; it is killed if it has not ended when this is left."""
    process = StreamedProcess(sandbox)
    container = sandbox.container
    request = requests.Spawn(
        argv=[word.encode("utf-8", "surrogateescape") for word in (container.supervisor, "transfer", *words)],
        env={},
        cwd=container.workspace.encode("utf-8", "surrogateescape"),
        user=b"" if container.user is None else container.user.encode(),
        flags=protocol.SpawnFlag.STDIN | protocol.SpawnFlag.BULK_INPUT,
        timeout_ms=round(TRANSFER_TIMEOUT * 1000),
        grace_ms=round(GRACE * 1000),
        spool=KEPT_OUTPUT,
        credit=NO_LIMIT,
    )
    try:
        await process.start(lambda _: request, more=True)
        yield process
    finally:
        with anyio.CancelScope(shield=True):  # bounded by the kill itself
            if not process.has_ended and process.failed is None:
                await sandbox.kill(process)
        process.close()


def _refusal(command: Command, reply: bytes, done: str) -> FileRefused | SandboxLost:
    """What a reply says that is not the wanted one. It comes from inside the sandbox: any bytes."""
    path = shown(command.text, PATH_SHOWN)
    if reply[:1] != b"\1" or len(reply) < _REFUSED.size:
        return SandboxLost(f"Something in the sandbox ended the transfer of {path}; it was not {done} whole.")
    _, why, errno, number, size = _REFUSED.unpack_from(reply)
    words = reply[_REFUSED.size : _REFUSED.size + size].decode("utf-8", "replace")
    if why == _OUTSIDE:
        return FileRefused(f"{path} leads out of the workspace by a link; name a path in it.")
    if why == _ARCHIVE:
        what = shown(" ".join(words.split()), PATH_SHOWN)
        return FileRefused(f"The archive was not unpacked to its end: {what}. What came before that entry is there.")
    refused = Refused(why, errno, number, words)
    said = sentence("read" if done == "read" else "write", command.text, refused)
    return FileRefused(said, code=ErrorCode(refused.code))
