"""How a command that a program has started ends: its last event, or the client's going."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    failure: TaskcellError | None = None
    async with anyio.create_task_group() as watching:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            watching.cancel_scope.cancel()

        watching.start_soon(watch)
        try:
            await serve()
        except TaskcellError as error:  # raised below: the task group would wrap it into an exception group
            failure = error
        watching.cancel_scope.cancel()
    if failure is not None:
        raise failure
