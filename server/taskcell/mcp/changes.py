"""Notifies clients of both eras of the protocol that the list of tools has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ToolsListChanged
from mcp_types import NotificationParams

from taskcell.mcp.subscriptions import Subscriptions
from taskcell.mcp.tools import SHOWN, Tools

log = structlog.get_logger(__name__)

#: Seconds for one client to take a notification, so that a client that does not read does not block the others.
NOTIFY_TIMEOUT = 5.0


class ToolChanges:
    """Knows whom to notify: clients of the handshake's era once they are initialized, later ones while they listen.

    Arguments:
        tools: the tools whose changes are announced.
        subscriptions: the clients that listen.
    """

    def __init__(self, tools: Tools, subscriptions: Subscriptions) -> None:
        self._tools = tools
        self._subscriptions = subscriptions
        self._sessions: set[ServerSession] = set()
        #: The handler of `subscriptions/listen`.
        self.listen = subscriptions.listen

    async def initialized(self, context: ServerRequestContext[Any, Any], params: NotificationParams | None) -> None:
        """Handle `notifications/initialized`: notify this client from now on, until its connection ends."""
        session = context.session
        self._sessions.add(session)
        # The SDK offers a handler no other way to learn that a connection ends.
        session._connection.exit_stack.callback(self._sessions.discard, session)

    @asynccontextmanager
    async def announced(self) -> AsyncIterator[None]:
        """Announce each change to clients while this is entered; on leaving, end the requests of those that listen."""
        async with self._subscriptions.running(), anyio.create_task_group() as telling:
            telling.start_soon(self._tell)
            try:
                yield
            finally:
                self.close()
                telling.cancel_scope.cancel()

    async def _tell(self) -> None:
        async for _ in self._tools.changes():
            await self._subscriptions.bus.publish(ToolsListChanged())
            async with anyio.create_task_group() as sending:
                for session in tuple(self._sessions):
                    sending.start_soon(self._notify, session)

    async def _notify(self, session: ServerSession) -> None:
        """Notify a client, unless the list that it has, or is waiting for, is the new one.

        SDKs of the 1.x line crash when a message arrives while they disconnect, as LangChain's `get_tools()` does as
        soon as it has its list.
        """
        state = session._connection.state
        if SHOWN in state and state[SHOWN] in (None, self._tools.listing):
            return
        with anyio.move_on_after(NOTIFY_TIMEOUT) as bound:
            try:
                await session.send_tool_list_changed()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._sessions.discard(session)
        if bound.cancelled_caught:
            log.info("A client does not read, so it was not told that the tools have changed.")

    def close(self) -> None:
        """End the requests of the clients that listen."""
        self._subscriptions.close()
