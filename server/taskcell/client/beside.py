"""Work that goes on beside a block; exceptions of both come out as they are, and not in a group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio


@asynccontextmanager
async def beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work` until it or the block ends. Where it fails, the block is cancelled, and its exception raised."""
    failed: Exception | None = None
    async with anyio.create_task_group() as working:

        async def run() -> None:
            nonlocal failed
            try:
                await work()
            except Exception as error:
                failed = failed or error
                working.cancel_scope.cancel()

        working.start_soon(run)
        try:
            yield
        except Exception as error:
            failed = failed or error
        working.cancel_scope.cancel()
    if failed is not None:
        raise failed
