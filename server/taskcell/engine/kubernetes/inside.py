"""What only a program inside a pod can say and do: the image's variables, and a task's files as an archive.

No API of Kubernetes does either. The supervisor's own program runs for it in an exec of its own, and becomes the
sandbox's user before it touches a file: what that user cannot read is not in the archive, and what is put back is that
user's.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import BinaryIO, NamedTuple

import anyio
import anyio.to_thread

from taskcell.engine.kubernetes import pod
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.exec_stream import PodExecStream, open_pod_exec
from taskcell.errors import EngineError, EngineUnavailable
from taskcell.model import WORKSPACE
from taskcell.text import PATH_SHOWN, shown

#: Seconds to copy a workspace out of a pod or into one: a gigabyte takes twenty.
COPY_TIMEOUT = 120.0
#: Seconds for a program that prints some kilobytes.
ASK_TIMEOUT = 15.0
#: The most bytes of an archive. Its program sends 256 KiB for each byte that it gets (`transfer/outlet.c`). It gets all
#: of them at once: one that came after its end would have the kernel throw away what is not read yet. What is on its
#: way is bounded by the connection.
ARCHIVE_MAX = 16 << 30
_PIECE = 256 << 10
_CHUNK = 1 << 17
#: Where a task's files lie while they are copied: on disk, for /tmp of the server's own pod is in memory.
COPIED_THROUGH = "/var/tmp"  # noqa: S108 - a file without a name
#: The first byte of a reply, and bytes of its head before an archive: kind, size, time, mode.
_DONE, _HEAD = 0, 1 + 1 + 8 + 8 + 4
#: Bytes of zeros at the end of a whole archive (pax).
_END = 1024
#: What the kubelet sets in each container, beside the image's own.
_KUBELETS = re.compile(r"HOSTNAME|KUBERNETES_(SERVICE|PORT)(_.*)?")
_SAYS = re.compile(rb"taskcell: ([^\n]*)\n")


class PodCell(NamedTuple):
    """A container of a pod."""

    pod: str
    cell: str


@asynccontextmanager
async def _running(api: Api, at: PodCell, *words: str) -> AsyncIterator[PodExecStream]:
    stream = await open_pod_exec(api, at.pod, at.cell, (pod.SUPERVISOR, *words))
    try:
        yield stream
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise EngineUnavailable("The Kubernetes API ended a stream to the sandbox. Call again.") from error
    finally:
        await anyio.aclose_forcefully(stream)


async def _said(api: Api, at: PodCell, *words: str) -> bytes:
    said = bytearray()
    with _bounded(ASK_TIMEOUT):
        async with _running(api, at, *words) as stream:
            with suppress(anyio.EndOfStream):
                while True:
                    said += await stream.receive()
    if not said:
        raise EngineUnavailable("A program in the sandbox said nothing. Call again.")
    return bytes(said)


async def environment(api: Api, at: PodCell) -> Mapping[str, str]:
    """The variables that the image of a pod's container sets. Raises EngineUnavailable, SandboxLost."""
    said = await _said(api, at, "environment")  # PATH at least
    entries = (entry.partition("=") for entry in said.decode("utf-8", "replace").split("\0") if entry)
    return {key: value for key, _, value in entries if not _KUBELETS.fullmatch(key)}


async def reaches(api: Api, at: PodCell) -> bool:
    """Whether a pod reaches the API of its cluster. Raises EngineUnavailable, SandboxLost."""
    return (await _said(api, at, "reach")).strip() == b"reached"


async def is_idle(api: Api, at: PodCell) -> bool:
    """Whether a container's supervisor waits for a server: the mode of its socket says so. Raises EngineError."""
    said = (await _said(api, at, "facts", pod.POD_SOCKET)).decode("utf-8", "replace").splitlines()
    return bool(said) and said[-1].startswith("at 600 ")


async def save(api: Api, at: PodCell, user: str | None, file: BinaryIO, most: int) -> None:
    """Write a pod's workspace as a tar archive. Raises EngineError.

    Arguments:
        user: who reads; None means root.
        most: bytes that the archive may have.
    """
    words = ("as", user or "0:0", WORKSPACE, "transfer", "send", "tar", "0", "0", ".")
    with _bounded(COPY_TIMEOUT):
        async with _running(api, at, *words) as stream:
            await stream.send(bytes(min(most, ARCHIVE_MAX) // _PIECE + 1))
            last = b""
            with suppress(anyio.EndOfStream):
                while len(last) < _HEAD:
                    last += await stream.receive(_HEAD - len(last))
                if last[0] == _DONE:
                    last = await _archive(stream, file, most)
            if last[-_END:] != bytes(_END):
                raise EngineError(f"The task's files could not be read: {_reason(last, stream)}.")


async def _archive(stream: PodExecStream, file: BinaryIO, most: int) -> bytes:
    """Write what comes to its end; return the last bytes of it. Raises EngineError."""
    received, last = 0, b""
    while True:
        try:
            data = await stream.receive(_CHUNK)
        except anyio.EndOfStream:
            return last
        received += len(data)
        if received > most:
            raise EngineError("The task's files take too much room as an archive; files with holes count in full.")
        last = (last + data)[-2 * _END :]
        try:
            await anyio.to_thread.run_sync(file.write, data)
        except OSError as error:
            raise EngineError(f"The server cannot write the task's files to its disk: {error.strerror}.") from error


async def put(api: Api, at: PodCell, user: str | None, file: BinaryIO) -> None:
    """Unpack a tar archive, from where the file stands, into a pod's workspace. Raises EngineError.

    Arguments:
        user: whose the files will be; None means root.
    """
    reply = bytearray()
    with _bounded(COPY_TIMEOUT):
        async with _running(api, at, "as", user or "0:0", WORKSPACE, "transfer", "unpack-open", ".") as stream:
            async with anyio.create_task_group() as group:

                async def send() -> None:
                    while data := await anyio.to_thread.run_sync(file.read, _CHUNK):
                        await stream.send(data)

                group.start_soon(send)
                with suppress(anyio.EndOfStream):
                    while True:
                        reply += await stream.receive()
                group.cancel_scope.cancel()
            if not reply or reply[0] != _DONE:
                raise EngineError(f"The task's files could not be put back: {_reason(bytes(reply), stream)}.")


async def copy(api: Api, source: PodCell, targets: Sequence[PodCell], user: str | None) -> None:
    """Copy a pod's files into others, through this machine's disk. Arguments as in `save`. Raises EngineError."""
    with tempfile.TemporaryFile(dir=COPIED_THROUGH if os.access(COPIED_THROUGH, os.W_OK) else None) as file:
        await save(api, source, user, file, ARCHIVE_MAX)
        for target in targets:
            file.seek(0)
            await put(api, target, user, file)


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise EngineError(f"A program in the sandbox did not end within {seconds:g} s. Call again.") from None


def _reason(said: bytes, stream: PodExecStream) -> str:
    found = _SAYS.search(said)
    words = found[1] if found else stream.said or said[14:]
    return shown(words.decode("utf-8", "replace"), PATH_SHOWN) if words.strip(b"\0") else "its program ended too early"
