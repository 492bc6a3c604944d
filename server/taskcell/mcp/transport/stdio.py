"""MCP over standard input and output, on the event loop: no thread that a signal would have to wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from taskcell.mcp.transport.descriptors import Wire
from taskcell.mcp.transport.in_flight import InFlight
from taskcell.mcp.transport.reader import StdioReader
from taskcell.mcp.transport.writer import StdioWriter


@asynccontextmanager
async def stdio_streams(
    wire: Wire, in_flight: InFlight, *, on_end: Callable[[], None], on_broken: Callable[[], None]
) -> AsyncIterator[tuple[StdioReader, StdioWriter]]:
    """The two streams of a session; on leaving, what was written is let go.

    Arguments:
        in_flight: of this client.
        on_end: called at the end of input, before the last answers are waited for.
        on_broken: called when the client no longer reads; must end the session.
    """
    writer = StdioWriter(wire.write, in_flight, on_broken)
    reader = StdioReader(wire.read, writer, in_flight, on_end)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.pump)
            tasks.start_soon(writer.watch)
            yield reader, writer
            tasks.cancel_scope.cancel()
    finally:
        await writer.finish()
