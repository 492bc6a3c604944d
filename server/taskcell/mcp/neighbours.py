"""Hands calls over to the server of the deployment that has their task, through its door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import (
    CONNECTION_CLOSED,
    LOG_LEVEL_META_KEY,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitResult,
    InputRequiredResult,
    LoggingMessageNotificationParams,
    ReadResourceResult,
    RequestParamsMeta,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.caller import LOCAL_CALLER, Caller
from taskcell.deployment.base import Claimed, Door, Peer
from taskcell.deployment.key import peer_token
from taskcell.errors import BadArgument, SandboxLost, TaskMoved
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.answer import ERROR
from taskcell.mcp.client_log import ClientLog
from taskcell.mcp.confirmation import Confirmation, NotConfirmed, can_ask
from taskcell.mcp.passed_on import CALL, OWNER_ENDED, SERVER_CLOSES, PassedCall, PassedOn
from taskcell.mcp.principal import caller_of
from taskcell.mcp.progress import is_wanted
from taskcell.model import DEFAULT_TASK, TaskKey, ToolCall

if TYPE_CHECKING:
    from taskcell.mcp.local_client import LocalClient

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
T = TypeVar("T")
Hear = Callable[[LoggingMessageNotificationParams], None]

#: The key of a request's `_meta` that says: the task is yours, do not hand the call over.
HERE = "taskcell/here"
#: The same: say who has the task, and have it if nobody has; do not ask a third server who is to say that.
SENT = "taskcell/sent"
#: Seconds for the door of a server to open that has just taken a task, and between two attempts.
DOOR_PATIENCE, DOOR_TURN = 5.0, 0.05
#: The same for a server of a cluster, of which the others know ten seconds later that it has died, each attempt being
#: two requests to the cluster's API; and for one attempt to connect.
PEER_PATIENCE, PEER_TURN, PEER_OPENS = 20.0, 0.5, 2.0
_CLOSED = (
    "Another server of this deployment has the task and cannot be reached; end that server, or use another task_id."
)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """How a request asks for the server of its task: for `is_here` and `is_sent` see HERE and SENT."""

    caller: Caller
    is_here: bool = False
    is_sent: bool = False


class Neighbours:
    """Calls for tasks that other servers have."""

    def __init__(self, gateway: Gateway, confirmation: Confirmation, client_log: ClientLog) -> None:
        self._gateway = gateway
        self._client_log = client_log
        self._confirmation = confirmation
        self.passed_on = PassedOn(gateway.pool.deployment)

    async def call(
        self, context: Context, call: ToolCall, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult | None:
        """Make a call where its task is; None if that is here. Raises TaskcellError, MCPError."""
        task = self._task_of(call)
        if task is None or (self._is_here(context) and call.arguments.get("action") == "status"):
            return None  # who looks for a task's server must not give the task to the first one
        began = anyio.current_time()
        while (found := await self.door(task, self.asked(context))) is not None:
            with suppress(TaskMoved):
                return await self._called(context, found, params)
            await self._again(began)
        return None

    async def _called(
        self, context: Context, found: Claimed, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        """Make a call at another server. Raises TaskMoved: it has not run there. TaskcellError, MCPError."""
        meta = {key: value for key, value in (context.meta or {}).items() if key.startswith("taskcell/")}
        outlet = self._client_log.outlet_of(context)
        if outlet is not None and outlet.asked is not None:
            meta[LOG_LEVEL_META_KEY] = outlet.asked
        passed = None if not isinstance(found.door, Peer) else self._passed(found.door, caller_of(context))
        sent = cast(RequestParamsMeta, {**meta, **({CALL: passed.name} if passed else {}), how(found): True})
        make = lambda client: self._made(client, context, params, sent)  # noqa: E731
        opened = self._open(found.door, caller_of(context), asks=can_ask(context), hear=outlet.take if outlet else None)

        async def reached() -> CallToolResult | InputRequiredResult:
            return await _reached(opened, make)

        result = await (reached() if passed is None else self.passed_on.during(passed, reached))
        if isinstance(result, CallToolResult) and _has_moved(result):
            raise TaskMoved
        return result

    def _passed(self, peer: Peer, caller: Caller) -> PassedCall:
        return PassedCall(peer, peer_token(self._gateway.pool.deployment.key, peer.instance, caller))

    async def _again(self, began: float) -> None:
        """Wait a little before another server is looked for. Raises TaskMoved once that has taken too long."""
        if anyio.current_time() - began > PEER_PATIENCE:
            raise TaskMoved
        await anyio.sleep(PEER_TURN)

    async def read(self, context: Context, task: TaskKey, uri: str) -> ReadResourceResult | None:
        """Read a resource where its task is; None if that is here. Raises TaskcellError, MCPError."""
        found = await self.door(task, self.asked(context))
        if found is None:
            return None
        sent = cast(RequestParamsMeta, {how(found): True})
        opened = self._open(found.door, caller_of(context))
        return await _reached(opened, lambda client: client.session.read_resource(uri, meta=sent))

    def _task_of(self, call: ToolCall) -> TaskKey | None:
        """The task that a call is for; None if it is for none, or refused anyway."""
        tool = self._gateway.tools[call.tool]
        try:
            values = tool.check(call)
        except BadArgument:
            return None
        if "task_id" not in tool.input_schema["properties"] or values.get("action") == "list" == call.tool:
            return None
        return TaskKey(call.principal, values.get("task_id", DEFAULT_TASK))

    def _is_here(self, context: Context) -> bool:
        """Whether the task is to be here. For the person's commands in a pod, any server's is as good."""
        is_person = caller_of(context) is LOCAL_CALLER and self._gateway.pool.deployment.marks_owners
        return _says(context, HERE) and not is_person

    def asked(self, context: Context) -> Inquiry:
        """How a request asks for the server of its task."""
        is_here = self._is_here(context)
        return Inquiry(caller_of(context), is_here=is_here, is_sent=is_here or _says(context, SENT))

    async def door(self, task: TaskKey, asked: Inquiry) -> Claimed | None:
        """Whose door takes connections that has a task, or says who has; None if this server has it now.

        That of a dead server is waited for until its tasks are another's. Raises TaskMoved: it is not here, and the
        request is to go no further; TaskcellError.
        """
        began = anyio.current_time()
        while True:
            found = await self._gateway.pool.holder(task, is_sent=asked.is_sent)
            if found.door is None:
                return None
            if asked.is_here:
                raise TaskMoved
            if await self._opens(found.door, asked.caller):
                return found
            is_peer = isinstance(found.door, Peer)
            if anyio.current_time() - began > (PEER_PATIENCE if is_peer else DOOR_PATIENCE):
                raise SandboxLost(_CLOSED)
            await anyio.sleep(PEER_TURN if is_peer else DOOR_TURN)

    async def _opens(self, door: Door, caller: Caller) -> bool:
        from taskcell.socket_name import short_path

        if isinstance(door, Peer):
            return await door.opens(self._passed(door, caller).token, PEER_OPENS)
        try:
            with short_path(door) as name:
                stream = await anyio.connect_unix(name)
        except OSError:
            return False
        await stream.aclose()
        return True

    def _open(
        self, door: Door | None, caller: Caller, *, asks: bool = False, hear: Hear | None = None
    ) -> AbstractAsyncContextManager[LocalClient]:
        """A client of another server."""
        from taskcell.mcp.local_client import local_client, peer_client

        if isinstance(door, Peer):
            key = self._gateway.pool.deployment.key
            return peer_client(door, peer_token(key, door.instance, caller), asks=asks, hear=hear)
        assert door is not None
        return local_client(door, asks=asks, hear=hear)

    async def _made(
        self, client: LocalClient, context: Context, params: CallToolRequestParams, meta: RequestParamsMeta
    ) -> CallToolResult | InputRequiredResult:
        async def tell(progress: float, total: float | None, message: str | None) -> None:
            await context.session.report_progress(progress, total, message)

        responses, state = params.input_responses, params.request_state
        while True:
            result = await client.session.call_tool(
                params.name,
                dict(params.arguments or {}),
                progress_callback=tell if is_wanted(context) else None,
                input_responses=responses,
                request_state=state,
                meta=meta,
                allow_input_required=True,
            )
            if isinstance(result, CallToolResult) or context.protocol_version in MODERN_PROTOCOL_VERSIONS:
                return result
            state, responses = result.request_state, {}
            for name, request in (result.input_requests or {}).items():
                assert isinstance(request, ElicitRequest)
                responses[name] = await self._elicited(context, request.params.message)

    async def _elicited(self, context: Context, message: str) -> ElicitResult:
        """The person's answer. That there is none is one too: a command that waits for it goes on, and must be met."""
        try:
            return await self._confirmation.elicit(context, message)
        except (NotConfirmed, NoBackChannelError, MCPError) as error:
            log.info("A client could not ask the person.", reason=str(error))
            return ElicitResult(action="cancel")


def _has_moved(result: CallToolResult) -> bool:
    refusal = (result.meta or {}).get(ERROR) or {}
    return bool(refusal.get("error", {}).get("moved"))


def _says(context: Context, key: str) -> bool:
    return (context.meta or {}).get(key) is True


def how(found: Claimed) -> str:
    """What a request that is handed on says: the task is there, or that server is to say where it is."""
    return HERE if found.is_certain else SENT


async def _reached(opened: AbstractAsyncContextManager[LocalClient], work: Callable[[LocalClient], Awaitable[T]]) -> T:
    """Do something with another server. Raises SandboxLost if it ends meanwhile, MCPError if it refuses."""
    import httpx2

    refused: MCPError | None = None
    try:
        async with opened as client:
            try:
                return await work(client)
            except MCPError as error:  # raised below: the client's task groups would wrap it
                refused = error
    except* (OSError, httpx2.HTTPError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
        pass
    if refused is not None and refused.code == SERVER_CLOSES:
        raise TaskMoved
    if refused is None or refused.code == CONNECTION_CLOSED:
        raise SandboxLost(OWNER_ENDED)
    raise refused
