"""What goes on after its call's answer: it keeps its place in the pool until it has ended."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import structlog

from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)


class Background:
    """Stays with processes that nobody waits for. Use as an async context manager; leaving it gives the places back."""

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        group, self._group = self._group, None
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)

    def keep(self, held: AsyncExitStack, sandbox: Sandbox, record: Record) -> None:
        """Hold a lease until the process has ended.

        Arguments:
            held: has the lease, and nothing that must be left in the task that entered it.
        """
        assert self._group is not None
        self._group.start_soon(self._stay, held, sandbox, record)

    @staticmethod
    async def _stay(held: AsyncExitStack, sandbox: Sandbox, record: Record) -> None:
        async with held:
            try:
                await sandbox.see_out(record)
            except Exception:  # a fault of ours: it must not take the other processes, and the server, along
                log.exception("A process in the background is not looked after any more.")
