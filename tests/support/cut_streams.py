"""Streams that break after so many bytes, in the middle of whatever is under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.abc

#: Opens a stream.
Connect = Callable[[], AbstractAsyncContextManager[anyio.abc.ByteStream]]


class CutStream(anyio.abc.ByteStream):
    """Passes so many bytes, both directions together, and is broken then: the last piece arrives in part."""

    def __init__(self, stream: anyio.abc.ByteStream, left: int) -> None:
        self._stream, self._left = stream, left

    def _take(self, count: int) -> int:
        taken = min(count, self._left)
        self._left -= taken
        return taken

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._left:
            raise anyio.EndOfStream
        data = await self._stream.receive(max_bytes)
        return data[: self._take(len(data))] or await self._broken()

    async def send(self, item: bytes) -> None:
        whole = self._take(len(item))
        if whole:
            await self._stream.send(item[:whole])
        if whole < len(item):
            await self._broken()

    async def _broken(self) -> bytes:
        await anyio.aclose_forcefully(self._stream)
        raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Cutter:
    """Breaks the first streams that are opened, each after so many bytes; later ones hold.

    `opened` counts them.
    """

    def __init__(self, connect: Connect, after: Iterator[int]) -> None:
        self._connect, self._after = connect, after
        self.opened = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[anyio.abc.ByteStream]:
        self.opened += 1
        left = next(self._after, None)
        async with self._connect() as stream:
            yield stream if left is None else CutStream(stream, left)


class DeafStream(anyio.abc.ByteStream):
    """Swallows what is sent once `is_deaf` says so; what comes still comes, as behind a network that is half gone."""

    def __init__(self, stream: anyio.abc.ByteStream, is_deaf: Callable[[], bool]) -> None:
        self._stream, self._is_deaf = stream, is_deaf

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        if not self._is_deaf():
            await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Piecewise(anyio.abc.ByteStream):
    """Hands on what comes byte by byte."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(1)

    async def send(self, item: bytes) -> None:
        for start in range(len(item)):
            await self._stream.send(item[start : start + 1])

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
