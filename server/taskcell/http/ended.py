"""How a command that a program has started ends: its last event, or the client's going."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
from starlette.types import Receive

from taskcell.errors import TaskcellError
from taskcell.gateway.apart import Apart
from taskcell.process.result import signal_name, status_of, survivors_of
from taskcell.sandbox.sandbox import SandboxState


def ended_fields(run: Apart) -> dict[str, Any]:
    """How a command has ended, as the last event of its answer says it."""
    process, is_closed = run.process, run.sandbox.state is SandboxState.CLOSED
    status, code = status_of(run.record, closed=is_closed)
    ended = process.exit
    return {
        "status": status.value,
        "exit_code": code,
        "signal": signal_name(ended.signal) if ended is not None and ended.signal else None,
        "duration_ms": process.duration_ms,
        "survivors": survivors_of(process, closed=is_closed),
        "alive": run.record.alive,
        "sizes": list(process.totals()),
    }


async def while_connected(receive: Receive, serve: Callable[[], Awaitable[None]]) -> None:
    """Serve until that has ended or the client has gone. Raises what `serve` raises."""

    async def watch(serving: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        serving.cancel()

    await serve_beside(watch, serve)


async def serve_beside(
    work: Callable[[anyio.CancelScope], Coroutine[Any, Any, None]], serve: Callable[[], Awaitable[None]]
) -> None:
    """Serve to the end, with `work` beside it, which can cancel it. Raises what `serve` raises."""
    failure: TaskcellError | None = None
    async with anyio.create_task_group() as both:
        both.start_soon(work, both.cancel_scope)
        try:
            await serve()
        except TaskcellError as error:  # raised below: the task group would wrap it into an exception group
            failure = error
        both.cancel_scope.cancel()
    if failure is not None:
        raise failure
