"""MCP logging: what happens to a client's tasks, for a client that asks for it.

The handshake's era asks once for its connection (`logging/setLevel`); later ones ask with each call, by a level in its
`_meta`, and hear of that call's task until its answer. Who has not asked hears nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import anyio
import anyio.abc
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    LOG_LEVEL_META_KEY,
    CallToolRequestParams,
    EmptyResult,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SetLevelRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.caller import Caller
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.news import Level, TaskEvent
from taskcell.mcp.principal import caller_of
from taskcell.mcp.scopes import FOR_COMMANDS, scopes_of
from taskcell.model import DEFAULT_TASK

Context = ServerRequestContext[Any, Any]
Message = LoggingMessageNotificationParams
T = TypeVar("T")

#: Messages that wait for a client that is slower; of later ones it is told how many there were.
MAX_WAITING = 100
#: Seconds between two messages to a connection: at most ten a second, as with progress.
INTERVAL = 0.1
#: Seconds for a client to take a message; one that does not read for so long misses it.
MESSAGE_TIMEOUT = 5.0
#: What the notification names as its source.
LOGGER = "taskcell"

#: What the request that is being served has asked to hear.
_OF_REQUEST: ContextVar[Outlet | None] = ContextVar("of_request", default=None)
_LEVELS: Mapping[LoggingLevel, Level | None] = {
    "debug": Level.DEBUG,
    "info": Level.INFO,
    "notice": Level.NOTICE,
    "warning": Level.WARNING,
    "error": Level.ERROR,
    # Nothing that happens to a task is as bad as these.
    "critical": None,
    "alert": None,
    "emergency": None,
}


class Outlet:
    """Sends one client what it wants to hear, in order and no faster than it may come.

    Arguments:
        level: the least that is sent; None sends nothing.
        send: raises what the SDK raises when the connection has ended.
    """

    def __init__(self, level: Level | None, send: Callable[[Message], Awaitable[None]]) -> None:
        self.level = level
        self._send = send
        self._waiting: deque[Message] = deque()
        self._left_out = 0
        self._changed = anyio.Event()
        self._has_ended = False

    @property
    def asked(self) -> LoggingLevel | None:
        """Its level in MCP's words."""
        return _named(self.level) if self.level is not None else None

    def hear(self, event: TaskEvent) -> None:
        """Take an event, if its level is high enough."""
        if self.level is not None and event.level >= self.level:
            more = {"tool": event.tool} if event.tool else {}
            data = {"message": event.sentence, "event": event.kind, "task_id": event.task.task, **more, **event.fields}
            self.take(LoggingMessageNotificationParams(level=_named(event.level), logger=LOGGER, data=data))

    def take(self, message: Message) -> None:
        """Take a message, or count it where too many wait."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(message)
        else:
            self._left_out += 1
        self._changed.set()

    def end(self) -> None:
        """Send what waits, without a pause, and nothing after it."""
        self._has_ended = True
        self._changed.set()

    async def run(self) -> None:
        """Send messages until `end`, or until the connection has ended."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            while (message := self._next()) is not None:
                with anyio.move_on_after(MESSAGE_TIMEOUT) as bound:
                    try:
                        await self._send(message)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        return
                if self._has_ended and bound.cancelled_caught:
                    return
                if not self._has_ended:
                    await anyio.sleep(INTERVAL)
            if self._has_ended:
                return

    def _next(self) -> Message | None:
        if self._waiting:
            return self._waiting.popleft()
        if not self._left_out:
            return None
        said, self._left_out = f"{self._left_out} more messages were left out: there were too many at once.", 0
        return LoggingMessageNotificationParams(level="warning", logger=LOGGER, data={"message": said})


class ClientLog:
    """The handler of `logging/setLevel`, and what a call's request asks for. It works while `running` is entered."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._group: anyio.abc.TaskGroup | None = None
        #: By connection.
        self._outlets: dict[object, Outlet] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send messages while this is entered."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                yield
            finally:
                group.cancel_scope.cancel()

    async def set_level(self, context: Context, params: SetLevelRequestParams) -> EmptyResult:
        """Handle `logging/setLevel`: from now on this connection hears of its caller's tasks."""
        connection, session, level = context.session._connection, context.session, _LEVELS[params.level]
        known = self._outlets.get(connection)
        if known is not None:
            known.level = level
            return EmptyResult()

        async def send(message: Message) -> None:
            await session.send_notification(LoggingMessageNotification(params=message))

        outlet = self._outlets[connection] = Outlet(level, send)
        scope, caller = anyio.CancelScope(), caller_of(context)

        async def serve() -> None:
            with scope, self._gateway.news.followed(lambda event: self._pass_on(event, caller, outlet)):
                await outlet.run()

        def forget() -> None:
            self._outlets.pop(connection, None)
            scope.cancel()

        # The SDK offers a handler no other way to learn that a connection ends.
        connection.exit_stack.callback(forget)
        assert self._group is not None
        self._group.start_soon(serve)
        return EmptyResult()

    async def while_called(
        self, context: Context, params: CallToolRequestParams, call: Callable[[], Awaitable[T]]
    ) -> T:
        """Await a call, and send what its request asks to hear of its task meanwhile; all of it, before its answer."""
        asked = _asked(context)
        if asked is None:
            return await call()
        outlet = Outlet(_LEVELS[asked], _of_request(context))
        caller, task = caller_of(context), (params.arguments or {}).get("task_id") or DEFAULT_TASK
        refused: MCPError | None = None

        def hear(event: TaskEvent) -> None:
            if event.task.task == task:
                self._pass_on(event, caller, outlet)

        async with anyio.create_task_group() as sending:
            sending.start_soon(outlet.run)
            of_request = _OF_REQUEST.set(outlet)
            try:
                with self._gateway.news.followed(hear):
                    answer = await call()
            except MCPError as error:  # raised below: the group would wrap it
                refused = error
            finally:
                _OF_REQUEST.reset(of_request)
            outlet.end()
        if refused is not None:
            raise refused
        return answer

    def outlet_of(self, context: Context) -> Outlet | None:
        """Where messages go that belong to a request which runs, for another server's; None if nobody asked."""
        return _OF_REQUEST.get() or self._outlets.get(context.session._connection)

    def _pass_on(self, event: TaskEvent, caller: Caller, outlet: Outlet) -> None:
        tool = self._gateway.tools.get(event.tool)
        scopes = FOR_COMMANDS if tool is None else scopes_of(tool)
        if event.task.principal == caller.principal and caller.may(scopes):
            outlet.hear(event)


def _named(level: Level) -> LoggingLevel:
    return next(name for name, value in _LEVELS.items() if value is level)


def _of_request(context: Context) -> Callable[[Message], Awaitable[None]]:
    session, request = context.session, context.request_id

    async def send(message: Message) -> None:
        await session.send_notification(LoggingMessageNotification(params=message), related_request_id=request)

    return send


def _asked(context: Context) -> LoggingLevel | None:
    """The level that a request of the later era asks for."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return None
    return cast(LoggingLevel | None, (context.meta or {}).get(LOG_LEVEL_META_KEY))
