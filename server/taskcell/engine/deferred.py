"""An engine that is imported and made at its first use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import anyio.abc
import anyio.to_thread

from taskcell.engine.abilities import TransfersApart
from taskcell.engine.base import Container, Engine


def deferred(make: Callable[[], Engine], *, has_images: bool = True) -> Engine:
    """An engine that `make` makes in a thread when it is first asked for something: a server answers its client's
    first request before it has imported what talks to the engine.

    Arguments:
        make: imports and makes an engine. It connects to nothing yet.
        has_images: whether that has images; none else.
    """
    return cast(Engine, _Deferred(make, has_images))


class _Deferred:
    """Has every method of `Engine`: those that are not written here wait for the engine and call its own."""

    def __init__(self, make: Callable[[], Engine], has_images: bool) -> None:
        self._make = make
        self._made: Engine | None = None
        self._making = anyio.Lock()
        self.images = _Images(self._engine) if has_images else None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(_call, self._engine, name)

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        async with (await self._engine()).connect(container) as stream:
            yield stream

    @asynccontextmanager
    async def apart(self, container: Container, words: Sequence[str]) -> AsyncIterator[anyio.abc.ByteStream]:
        async with cast(TransfersApart, await self._engine()).apart(container, words) as stream:
            yield stream

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        async with (await self._engine()).frozen(containers):
            yield

    async def aclose(self) -> None:
        if self._made is not None:
            await self._made.aclose()

    async def _engine(self) -> Engine:
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await anyio.to_thread.run_sync(self._make, abandon_on_cancel=True)
        return self._made


class _Images:
    """Has every method of `ImageEngine`."""

    def __init__(self, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def images() -> Any:
            return (await self._engine()).images

        return partial(_call, images, name)


async def _call(on: Callable[[], Awaitable[Any]], name: str, *arguments: Any, **named: Any) -> Any:
    return await getattr(await on(), name)(*arguments, **named)
