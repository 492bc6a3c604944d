"""Hands calls over to the server of the deployment that has their task, through its local door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
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
    ReadResourceResult,
    RequestParamsMeta,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.errors import BadArgument, SandboxLost
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.client_log import ClientLog, Outlet
from taskcell.mcp.confirmation import Confirmation, NotConfirmed, can_ask
from taskcell.mcp.progress import is_wanted
from taskcell.model import DEFAULT_TASK, TaskKey, ToolCall

if TYPE_CHECKING:
    from taskcell.mcp.local_client import LocalClient

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]
T = TypeVar("T")

#: The key of a request's `_meta` that says: the task is yours, do not hand the call over.
HERE = "taskcell/here"
#: Seconds for the door of a server to open that has just taken a task, and between two attempts.
DOOR_PATIENCE, DOOR_TURN = 5.0, 0.05
_CLOSED = (
    "Another server of this deployment has the task and cannot be reached; end that server, or use another task_id."
)
_ENDED = (
    "The server that had this task has ended during the call. Nothing is run twice: what the call had started may have "
    "ended or go on, and the task's next call finds it (`process` with action 'list')."
)
_MOVED = "The task has moved to another server of the deployment at this moment; call again."


class Neighbours:
    """Calls for tasks that other servers have."""

    def __init__(self, gateway: Gateway, confirmation: Confirmation, client_log: ClientLog) -> None:
        self._gateway = gateway
        self._client_log = client_log
        self._confirmation = confirmation

    async def call(
        self, context: Context, call: ToolCall, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult | None:
        """Make a call where its task is; None if that is here. Raises TaskcellError, MCPError."""
        task = self._task_of(call)
        if task is None or (_is_here(context) and call.arguments.get("action") == "status"):
            return None  # who looks for a task's server must not give the task to the first one
        door = await self._door(task, context)
        if door is None:
            return None
        meta = {key: value for key, value in (context.meta or {}).items() if key.startswith("taskcell/")}
        outlet = self._client_log.outlet_of(context)
        if outlet is not None and outlet.asked is not None:
            meta[LOG_LEVEL_META_KEY] = outlet.asked
        sent = cast(RequestParamsMeta, {**meta, HERE: True})
        make = lambda client: self._made(client, context, params, sent)  # noqa: E731
        return await _reached(door, make, asks=can_ask(context), outlet=outlet)

    async def read(self, context: Context, task: TaskKey, uri: str) -> ReadResourceResult | None:
        """Read a resource where its task is; None if that is here. Raises TaskcellError, MCPError."""
        door = await self._door(task, context)
        if door is None:
            return None
        sent = cast(RequestParamsMeta, {HERE: True})
        return await _reached(door, lambda client: client.session.read_resource(uri, meta=sent))

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

    async def _door(self, task: TaskKey, context: Context) -> Path | None:
        """The door of the server that has a task, which takes connections; None if this server has it now."""
        with anyio.move_on_after(DOOR_PATIENCE):
            while (door := (await self._gateway.pool.holder(task)).door) is not None:
                assert isinstance(door, Path)
                if _is_here(context):
                    raise SandboxLost(_MOVED)
                if await _opens(door):
                    return door
                await anyio.sleep(DOOR_TURN)
            return None
        raise SandboxLost(_CLOSED)

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


def _is_here(context: Context) -> bool:
    """Whether the request says that this server has its task."""
    return (context.meta or {}).get(HERE) is True


async def _opens(door: Path) -> bool:
    from taskcell.deployment.doors import short_path

    try:
        with short_path(door) as name:
            stream = await anyio.connect_unix(name)
    except OSError:
        return False
    await stream.aclose()
    return True


async def _reached(
    door: Path, work: Callable[[LocalClient], Awaitable[T]], *, asks: bool = False, outlet: Outlet | None = None
) -> T:
    """Do something with the server behind a door. Raises SandboxLost if it ends meanwhile, MCPError if it refuses.

    Arguments:
        asks: the person can be asked for a confirmation.
        outlet: takes what the other server tells of the task.
    """
    import httpx2

    from taskcell.mcp.local_client import local_client

    refused: MCPError | None = None
    try:
        async with local_client(door, asks=asks, hear=outlet.take if outlet else None) as client:
            try:
                return await work(client)
            except MCPError as error:  # raised below: the client's task groups would wrap it
                refused = error
    except* (OSError, httpx2.HTTPError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
        pass
    if refused is None or refused.code == CONNECTION_CLOSED:
        raise SandboxLost(_ENDED)
    raise refused
