"""The event loop of tests: asyncio's own, but that a harmless race of anyio's sockets fails no test."""

from __future__ import annotations

import asyncio
from typing import Any


class Loop(asyncio.SelectorEventLoop):
    """Passes over a wait for a socket that was cancelled in the very turn of the loop that found the socket ready.

    anyio lets the loop call the `set_result` of such a wait's future, cancelled or not (4.16, `_RawSocketMixin`); the
    loop then reports `InvalidStateError`, which a server logs and anyio's pytest plugin makes a failure.
    """

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not _is_late(context):
            super().call_exception_handler(context)


def _is_late(context: dict[str, Any]) -> bool:
    """Whether a handle of the loop failed at waking a future that is cancelled."""
    if not isinstance(context.get("exception"), asyncio.InvalidStateError):
        return False
    called = getattr(context.get("handle"), "_callback", None)
    future = getattr(called, "__self__", None)
    return isinstance(future, asyncio.Future) and future.cancelled()
