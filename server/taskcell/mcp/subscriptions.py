"""Tells clients of both eras when a resource that they follow has changed.

The handshake's era has `resources/subscribe` and `resources/unsubscribe`; later ones name addresses in
`subscriptions/listen`. A client hears of its own principal's resources alone, even where another's have the same
address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from taskcell.errors import BadArgument, UnknownResource
from taskcell.mcp.following import OVER, Following
from taskcell.mcp.neighbours import Inquiry
from taskcell.mcp.principal import caller_of
from taskcell.mcp.resources.routes import Resources

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
#: Resources that one principal follows at once; each costs a look a second.
MAX_FOLLOWED = 64
#: Servers that may follow as many here for their clients: those that one principal's tasks are spread over.
MAX_SERVERS = 8
#: Requests of one principal that listen at once.
MAX_LISTENING = 256
#: Seconds for a client to take a notice; one that does not read for so long misses it.
UPDATE_TIMEOUT = 5.0
#: Seconds for the first look at what a request follows, which takes some ms: then it is acknowledged without.
FIRST_LOOK_TIMEOUT = 5.0


class Subscriptions:
    """Follows resources for clients. Its handlers are called while `running` is entered.

    Arguments:
        resources: where an address is looked up.
        following: follows it, whichever server has its task.
    """

    def __init__(self, resources: Resources, following: Following) -> None:
        self._resources = resources
        self._following = following
        self._group: anyio.abc.TaskGroup | None = None
        self._followed: Counter[str] = Counter()
        self._listening: dict[ListenHandler, str] = {}
        self._scopes: dict[tuple[object, str], anyio.CancelScope] = {}
        #: Events for every client that listens.
        self.bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow resources while this is entered; on leaving, end the requests of those that listen."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                yield
            finally:
                self.close()
                group.cancel_scope.cancel()

    def close(self) -> None:
        """End the requests of the clients that listen."""
        for handler in tuple(self._listening):
            handler.close()

    # --- the handshake's era -----------------------------------------------------------------------------------

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """Handle `resources/subscribe`: notify this client of changes until it unsubscribes or its connection ends."""
        connection, session = context.session._connection, context.session
        key = (connection, params.uri)
        if key not in self._scopes:
            self._check_room(context, params.uri)

            async def tell() -> None:
                await session.send_resource_updated(params.uri)

            scope = self._scopes[key] = anyio.CancelScope()
            # The SDK offers a handler no other way to learn that a connection ends.
            connection.exit_stack.callback(self._forget, key)
            await _all_begun([self._start(self._following.asked(context), params.uri, tell, scope)])
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Handle `resources/unsubscribe`."""
        self._forget((context.session._connection, params.uri))
        return EmptyResult()

    def _forget(self, key: tuple[object, str]) -> None:
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel()

    # --- later eras --------------------------------------------------------------------------------------------

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Handle `subscriptions/listen`: what is acknowledged is what will be told."""
        wanted, asked = params.notifications, self._following.asked(context)
        principal = asked.caller.principal
        if list(self._listening.values()).count(principal) >= MAX_LISTENING:
            raise MCPError(code=INVALID_REQUEST, message=f"At most {MAX_LISTENING} requests may listen at once.")
        uris = list(dict.fromkeys(wanted.resource_subscriptions or ()))
        for uri in uris:
            self._check_room(context, uri, beside=len(uris) - 1)
        # The list of resources changes with every command, and that of prompts never: neither is announced.
        kinds = {"resource_subscriptions": uris or None, "resources_list_changed": None, "prompts_list_changed": None}
        honored = params.model_copy(update={"notifications": wanted.model_copy(update=kinds)})
        assert self._group is not None
        own = _ClientsBus(self.bus)
        handler = ListenHandler(own)
        self._listening[handler] = principal
        scopes = {uri: anyio.CancelScope() for uri in uris}
        # A server that has sent the request has to know when to look for the task again.
        ends = own.end if asked.is_sent else None
        begun = [
            self._start(asked, uri, partial(own.publish, ResourceUpdated(uri=uri)), scope, ends)
            for uri, scope in scopes.items()
        ]
        try:
            await _all_begun(begun)
            self._group.start_soon(own.close_at_end, handler)
            result = await handler(context, honored)
            return result.model_copy(update={"meta": {**(result.meta or {}), OVER: own.is_over}})
        finally:
            own.end(False)
            del self._listening[handler]
            for scope in scopes.values():
                scope.cancel()

    # --- following ---------------------------------------------------------------------------------------------

    def _check_room(self, context: Context, uri: str, beside: int = 0) -> None:
        """Raise MCPError if there can be no such resource, or the principal follows too many."""
        caller = caller_of(context)
        try:
            self._resources.find(uri, caller)
        except (UnknownResource, BadArgument) as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error), data={"uri": uri}) from None
        most = MAX_FOLLOWED * (MAX_SERVERS if self._following.asked(context).is_sent else 1)
        if self._followed[caller.principal] + beside >= most:
            sentence = f"At most {MAX_FOLLOWED} resources can be followed at once; unsubscribe from some first."
            raise MCPError(code=INVALID_REQUEST, message=sentence)

    def _start(
        self,
        asked: Inquiry,
        uri: str,
        tell: Callable[[], Awaitable[None]],
        scope: anyio.CancelScope,
        ends: Callable[[bool], None] | None = None,
    ) -> anyio.Event:
        """Follow a resource until the scope is cancelled. The event is set once no later change is missed.

        Arguments:
            ends: called where it ends by itself, with whether nothing changes any more.
        """
        begun = anyio.Event()

        async def follow() -> None:
            try:
                with scope:
                    is_over = await self._follow(asked, uri, tell, begun.set)
                    if ends is not None:
                        ends(is_over)
            finally:
                begun.set()
                self._followed[principal] -= 1

        principal = asked.caller.principal
        assert self._group is not None
        self._followed[principal] += 1
        self._group.start_soon(follow)
        return begun

    async def _follow(
        self, asked: Inquiry, uri: str, tell: Callable[[], Awaitable[None]], begun: Callable[[], None]
    ) -> bool:
        """Tell of a resource's changes, until there are no more. Nothing that goes wrong ends anything else.

        Returns False where the task is not here, and another server has asked.
        """

        async def changed() -> None:
            with anyio.move_on_after(UPDATE_TIMEOUT), suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await tell()

        try:
            route, task, rest = self._resources.find(uri, asked.caller)
            here = partial(route.follow, task, rest, changed, begun)
            return await self._following.follow(asked, task, uri, here, changed, begun)
        except UnknownResource as error:
            log.info("A client follows a resource that is not there.", uri=uri, reason=str(error))
        except Exception:
            log.exception("A resource is not followed any more.", uri=uri)
        return True


async def _all_begun(begun: Sequence[anyio.Event]) -> None:
    with anyio.move_on_after(FIRST_LOOK_TIMEOUT):
        for event in begun:
            await event.wait()


class _ClientsBus:
    """What one request that listens hears: events for all clients, and of the resources that it follows."""

    def __init__(self, shared: InMemorySubscriptionBus) -> None:
        self._shared = shared
        self._own = InMemorySubscriptionBus()
        self._ended = anyio.Event()
        self.is_over = False

    def end(self, is_over: bool) -> None:
        """Say that nothing comes any more; `is_over`: and never will."""
        self.is_over = self.is_over or is_over
        self._ended.set()

    async def close_at_end(self, handler: ListenHandler) -> None:
        await self._ended.wait()
        handler.close()

    async def publish(self, event: ServerEvent) -> None:
        await self._own.publish(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        ends = (self._shared.subscribe(listener), self._own.subscribe(listener))

        def unsubscribe() -> None:
            for end in ends:
                end()

        return unsubscribe
