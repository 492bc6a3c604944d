"""The tasks extension (SEP-2663): a call whose command goes on answers a task, which the client asks for by its id.

A task is another view of a process that was handed off. Its id holds the task's and the process's names and the
process's key: nothing must be kept here, and the id is good wherever the process is known, so for the next server too.
"""

from __future__ import annotations

import base64
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    RequestParams,
    SubscriptionsListenRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.errors import SandboxLost, TaskcellError, UnknownProcess
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.answer import answer
from taskcell.mcp.changes import ToolChanges
from taskcell.mcp.principal import principal_of
from taskcell.mcp.progress import newest_output
from taskcell.mcp.tools import Tools
from taskcell.model import ProcessResult, Reuse, Status, TaskKey, ToolCall
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import DEADLINE_SLACK, Sandbox
from taskcell.supervisor import protocol
from taskcell.tools.process_calls import NAME as PROCESS
from taskcell.tools.process_calls import find_process
from taskcell.tools.process_report import ProcessReport
from taskcell.units import format_milliseconds

log = structlog.get_logger(__name__)

EXTENSION = "io.modelcontextprotocol/tasks"
#: Milliseconds between two questions: a tenth of the time that the command runs already, so that a short one is told
#: of soon and a long one is not asked for a thousand times.
POLL_SHARE = 0.1
POLL_MIN_MS, POLL_MAX_MS = 500, 5000
#: Characters of an id: the longest name of a task in base64, a process's name and its key are well below it.
MAX_ID = 1024
#: Ends that are kept here, because the sandbox was one for this call alone and goes as soon as they are told: a client
#: that lost the answer asks again within seconds.
KEPT_ENDS = 16

Context = ServerRequestContext[Any, Any]
#: A task as `tasks/get` answers it.
State = dict[str, Any]


class TaskParams(RequestParams):
    """What the extension's methods are called with; `inputResponses` of `tasks/update` are to questions never asked."""

    task_id: str


class Tasks:
    """The handlers of the extension's methods, and of those that behave otherwise where a client declares it.

    Nobody else's tasks than the caller's can be named.
    """

    def __init__(self, gateway: Gateway, tools: Tools, changes: ToolChanges) -> None:
        self._gateway = gateway
        self._tools = tools
        self._changes = changes
        self._ends: OrderedDict[tuple[str, str], State] = OrderedDict()

    def serve(self, server: Server[Any]) -> None:
        """Declare the extension, and take over its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tools/call", CallToolRequestParams, self.call)
        server.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, self.listen)
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", TaskParams, self.update)
        server.add_request_handler("tasks/cancel", TaskParams, self.cancel)

    async def call(self, context: Context, params: CallToolRequestParams) -> HandlerResult:
        """Run one call; where its command goes on, a client that declares the extension is answered a task."""
        report = await self._tools.report(context, params)
        if not isinstance(report, ProcessResult) or report.status is not Status.RUNNING or not _declares(context):
            return answer(report)
        task = TaskKey(principal_of(context), report.task_id)
        try:
            _, record = await find_process(self._gateway.pool, task, report.process_id)
        except UnknownProcess:  # it has ended since, and its sandbox with it
            return answer(report)
        return {"resultType": "task", **self._state(_identity(task, record), record, "working", _brief(record))}

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> HandlerResult:
        """Serve `subscriptions/listen`. Ends of tasks are not told there, so none is in the acknowledgement."""
        wanted = (context.params or {}).get("notifications")
        if isinstance(wanted, Mapping) and wanted.get("taskIds") is not None:
            _require(context)
        return await self._changes.listen(context, params)

    async def get(self, context: Context, params: TaskParams) -> HandlerResult:
        """How the task stands; with the call's result when it has ended."""
        return await self._guarded(context, params, self._get)

    async def cancel(self, context: Context, params: TaskParams) -> HandlerResult:
        """Kill the command with all that it started; of one that has ended nothing changes."""
        return await self._guarded(context, params, self._cancel)

    async def update(self, context: Context, params: TaskParams) -> HandlerResult:
        """Acknowledge answers to questions: no task asks any."""
        return await self._guarded(context, params, self._update)

    async def _guarded(
        self, context: Context, params: TaskParams, act: Callable[[str, str], Awaitable[State]]
    ) -> HandlerResult:
        """Whatever goes wrong is the protocol's error, with a sentence."""
        _require(context)
        _check_header(context, params.task_id)
        principal = principal_of(context)
        try:
            return await act(principal, params.task_id)
        except UnknownProcess as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error)) from None
        except TaskcellError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from None
        except Exception:
            log.exception("A task could not be asked for.")
            raise MCPError(code=INTERNAL_ERROR, message="Internal error; see the server's log.") from None

    async def _get(self, principal: str, identity: str) -> State:
        kept = self._ends.get((principal, identity))
        if kept is not None:
            return kept
        task, sandbox, record = await self._find(principal, identity)
        if record.process.has_ended:
            return await self._end(identity, task, sandbox, record)
        return self._state(identity, record, "working", await _news(record))

    async def _cancel(self, principal: str, identity: str) -> State:
        if (principal, identity) not in self._ends:
            task, sandbox, record = await self._find(principal, identity)
            if not record.process.has_ended:
                await sandbox.kill(record.process)
                if record.process.has_ended:
                    # Nobody may ask for it any more, and a sandbox for this call alone waits for that.
                    await self._end(identity, task, sandbox, record)
        return {}

    async def _update(self, principal: str, identity: str) -> State:
        if (principal, identity) not in self._ends:
            await self._find(principal, identity)
        return {}

    async def _find(self, principal: str, identity: str) -> tuple[TaskKey, Sandbox, Record]:
        """Raises UnknownProcess."""
        try:
            key, process_id, task_id = _parse(identity)
            task = TaskKey(principal, task_id)
            sandbox, record = await find_process(self._gateway.pool, task, process_id)
            known = record.about.key
            if known and hmac.compare_digest(known.encode(), key.encode()):
                return task, sandbox, record
        except (ValueError, UnknownProcess):
            pass
        raise UnknownProcess(
            "There is no such task, or none any more: its sandbox was closed or replaced, or too many newer commands "
            "have finished in it. Run the command again if its result is needed."
        )

    async def _end(self, identity: str, task: TaskKey, sandbox: Sandbox, record: Record) -> State:
        """How a task ended, with the answer that its call would have had."""
        about = record.about
        arguments = {
            "action": "poll",
            "process_id": about.process_id,
            "task_id": task.task,
            "strip_ansi": about.strip_ansi,
        }
        report = await self._gateway.call(ToolCall(task.principal, PROCESS, arguments))
        assert isinstance(report, ProcessReport)
        assert report.result is not None
        result = replace(report.result, cursor=None, stderr_cursor=None)
        killed = record.process.exit is not None and record.process.exit.reason is protocol.Reason.KILL
        if killed and result.status is Status.KILLED:
            state = self._state(identity, record, "cancelled", result.ending())
        else:
            state = self._state(identity, record, "completed", result.ending())
            state["result"] = answer(result).model_dump(by_alias=True, mode="json", exclude_none=True)
        if sandbox.profile.reuse is Reuse.CALL:
            self._ends[task.principal, identity] = state
            while len(self._ends) > KEPT_ENDS:
                self._ends.popitem(last=False)
        return state

    def _state(self, identity: str, record: Record, status: str, message: str) -> State:
        """What every answer tells of a task."""
        about, over = record.about, status != "working"
        age = max(0.0, (record.ended if over else time.time()) - about.started)
        # It is known at least so long after its end; and nobody should give up on what may run longer than that.
        ttl = age + self._gateway.idle_ttl
        if not over:
            ttl = max(ttl, about.timeout + DEADLINE_SLACK)
        return {
            "taskId": identity,
            "status": status,
            "statusMessage": message,
            "createdAt": _timestamp(about.started),
            "lastUpdatedAt": _timestamp(about.started + age),
            "ttlMs": math.ceil(ttl * 1000),
            "pollIntervalMs": min(max(POLL_MIN_MS, round(age * 1000 * POLL_SHARE)), POLL_MAX_MS),
        }


def _identity(task: TaskKey, record: Record) -> str:
    """An id that fits into a header, and says nothing to whoever does not know how it is made."""
    words = f"{record.about.key} {record.about.process_id} {task.task}"
    return base64.urlsafe_b64encode(words.encode()).decode().rstrip("=")


def _parse(identity: str) -> tuple[str, str, str]:
    """Key, process and task of an id. Raises ValueError."""
    if len(identity) > MAX_ID:
        raise ValueError("too long")
    words = base64.urlsafe_b64decode(identity + "=" * (-len(identity) % 4)).decode()
    key, process_id, task_id = words.split(" ", 2)
    return key, process_id, task_id


async def _news(record: Record) -> str:
    """How a command that runs is getting on: for how long, how much it has written, and the newest lines of that."""
    newest = ""
    with suppress(SandboxLost):
        newest = await newest_output(record.process)
    brief = _brief(record)
    return f"{brief}, at last:\n{newest}" if newest else brief


def _brief(record: Record) -> str:
    size = sum(record.process.written)
    after = format_milliseconds(record.process.duration_ms)
    return f"running for {after} as process {record.about.process_id}; {size:,} bytes of output so far"


def _timestamp(when: float) -> str:
    """Seconds since the epoch in ISO 8601."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _declares(context: Context) -> bool:
    """Whether this very request declares the extension. Earlier revisions' results have no room for a task."""
    capabilities = context.session.client_capabilities
    return (
        context.protocol_version in MODERN_PROTOCOL_VERSIONS
        and capabilities is not None
        and EXTENSION in (capabilities.extensions or {})
    )


def _require(context: Context) -> None:
    """Raises MCPError where the request does not declare the extension."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(code=METHOD_NOT_FOUND, message="Method not found", data=context.method)
    if not _declares(context):
        raise MCPError(
            code=MISSING_REQUIRED_CLIENT_CAPABILITY,
            message=f"Only a client that declares the extension {EXTENSION} has tasks; declare it in each request.",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _check_header(context: Context, identity: str) -> None:
    """Over HTTP the header that requests are routed by must name the task. Raises MCPError."""
    if context.request is not None and decode_header_value(context.request.headers.get(MCP_NAME_HEADER)) != identity:
        raise MCPError(code=HEADER_MISMATCH, message="The header Mcp-Name must be there and be the request's taskId.")
