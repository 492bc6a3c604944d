"""Keeps the leases of commands that outlive their calls, until the commands end."""

from __future__ import annotations

from collections.abc import Callable
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
    """Waits for processes that no call waits for. Use as an async context manager; leaving it returns the leases."""

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

    def keep(
        self, held: AsyncExitStack, sandbox: Sandbox, record: Record, on_end: Callable[[], None] | None = None
    ) -> None:
        """Hold a lease until the process ends.

        Arguments:
            on_end: called when it has ended, or was lost.
            held: holds the lease, and nothing that must be exited in the task that entered it.
        """
        assert self._group is not None
        self._group.start_soon(self._stay, held, sandbox, record, on_end)

    @staticmethod
    async def _stay(held: AsyncExitStack, sandbox: Sandbox, record: Record, on_end: Callable[[], None] | None) -> None:
        async with held:
            try:
                await sandbox.see_out(record)
                if on_end is not None:
                    on_end()
            except Exception:  # a bug here must not end the other processes and the server
                log.exception("Watching a process in the background failed; its lease was returned.")
