"""Files and folders between this machine and a task, as archives that are streamed."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx2

from taskcell.client.failures import ArgumentError, CellError, NotFoundError
from taskcell.client.host_archive import CHUNK, Unpacking, packed
from taskcell.client.wire import ServerClient, file_path
from taskcell.errors import TaskcellError
from taskcell.piece_file import PieceFile

_TAR = "application/x-tar"


async def upload(wire: ServerClient, task: str, source: Path, target: str, left_out: Callable[[str], None]) -> None:
    """Arguments as those of `Task.upload`."""
    if not await anyio.to_thread.run_sync(os.path.lexists, source):
        raise NotFoundError(f"There is no file or folder {source} here.")
    await anyio.to_thread.run_sync(_check_kind, source)
    file_path(task, target)  # raises ArgumentError, which the folder above it alone would not
    parent, name = posixpath.split(posixpath.normpath(posixpath.join("/workspace", target)))
    if parent in ("/", ""):
        parent, name = "/workspace", "."
    archive = joined_pieces(
        packed(source, name, lambda path: left_out(f"{path} is neither a file, a folder nor a link."))
    )
    headers = {"content-type": _TAR}
    async with wire.stream("PUT", file_path(task, parent), task=task, content=archive, headers=headers) as answer:
        await answer.aread()


def _check_kind(path: Path) -> None:
    """Raise ArgumentError: it is there, and is neither a file nor a folder."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ArgumentError(f"{path} is a device, a pipe or a socket here; name a file or a folder.")


async def joined_pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, read in a thread; small ones are joined, for a tree may have a million small files."""

    def some() -> bytes:
        joined = bytearray()
        try:
            for piece in pieces:
                joined += piece
                if len(joined) >= CHUNK:
                    break
        except OSError as error:  # which would pass for one of the connection
            what = f"{error.filename or 'A file'} here cannot be read"
            raise CellError(f"{what} ({error.strerror}); not all was copied: copy again.") from error
        except TaskcellError as error:
            raise CellError(str(error)) from None
        return bytes(joined)

    while data := await anyio.to_thread.run_sync(some):
        yield data


async def download(wire: ServerClient, task: str, source: str, target: Path, left_out: Callable[[str], None]) -> None:
    """Arguments as those of `Task.download`."""
    base = target.parent
    if not await anyio.to_thread.run_sync(base.is_dir):
        raise NotFoundError(f"There is no folder {base} here; make it first.")
    await anyio.to_thread.run_sync(_check_kind, target)
    headers = {"accept": _TAR}
    async with wire.stream("GET", file_path(task, source), task=task, headers=headers) as answer:
        pieces = aiter(_received(answer))
        archive = io.BufferedReader(PieceFile(lambda: anyio.from_thread.run(anext, pieces, None)), CHUNK)
        try:
            await anyio.to_thread.run_sync(Unpacking(base, target.name, left_out).unpack, archive)
        except TaskcellError as error:
            raise CellError(str(error)) from None


async def _received(answer: httpx2.Response) -> AsyncIterator[bytes]:
    """The pieces of a body. One that breaks off ends: the archive in it shows that, and may say why."""
    with suppress(httpx2.RemoteProtocolError):
        async for piece in answer.aiter_raw():
            yield piece
