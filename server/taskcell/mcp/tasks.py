"""The tasks extension (SEP-2663): a call whose command goes on returns a task, which the client polls by its id.

A task is a view of a process that outlived its call. Its id holds the process's name, its task's name and its key.
Nothing is stored here, and the id is valid wherever the process is known, so in the next server too.
"""

from __future__ import annotations

import base64
import hmac
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    SubscriptionsListenRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskcell.errors import SandboxLost, TaskcellError, UnknownProcess
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.changes import ToolChanges
from taskcell.mcp.methods import EXTENSION, TaskParams
from taskcell.mcp.principal import principal_of, require
from taskcell.mcp.progress import newest_output
from taskcell.mcp.scopes import FOR_COMMANDS
from taskcell.mcp.tools import Tools
from taskcell.model import ProcessResult, Reuse, Status, TaskKey, ToolCall
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.wait import DEADLINE_SLACK
from taskcell.supervisor import protocol
from taskcell.text import shown
from taskcell.tools.process_calls import PROCESS, find_process
from taskcell.tools.process_report import ProcessReport
from taskcell.units import format_milliseconds

log = structlog.get_logger(__name__)

#: The interval that clients are told to poll at, in milliseconds: a tenth of the command's age, so that the end of a
#: short command is seen soon and a long command is not polled a thousand times.
POLL_SHARE = 0.1
POLL_MIN_MS, POLL_MAX_MS = 500, 5000
#: Characters of an id: more than the longest task name, process name and key need in base64.
MAX_ID = 1024
#: Final states that are kept: the sandbox of a single call is closed once its result was read, and clients ask again.
KEPT_ENDS = 16
#: In an id: the form of the answer that the call asked for.
_TEXT, _STRUCTURED = "t", "s"

Context = ServerRequestContext[Any, Any]
#: A task as `tasks/get` returns it.
TaskState = dict[str, Any]


class Tasks:
    """The handlers of the extension's methods, and of methods that behave differently for a client that declares it.

    A caller can only name its own tasks.
    """

    def __init__(self, gateway: Gateway, tools: Tools, changes: ToolChanges) -> None:
        self._gateway = gateway
        self._tools = tools
        self._changes = changes
        self._ends: OrderedDict[tuple[str, str], TaskState] = OrderedDict()

    async def call(self, context: Context, params: CallToolRequestParams) -> HandlerResult:
        """Run one call. If its command goes on to its time-out and the client declares the extension, return a task."""
        report = await self._tools.report(context, params)
        if isinstance(report, InputRequiredResult | CallToolResult):
            return report
        structured = self._tools.answers.asked(context.meta)
        if not isinstance(report, ProcessResult) or report.status is not Status.RUNNING or not _declares(context):
            return self._tools.answers.of(report, structured=structured)
        task = TaskKey(principal_of(context), report.task_id)
        try:
            _, record = await find_process(self._gateway.pool, task, report.process_id)
        except UnknownProcess:  # it has ended meanwhile, and so has its sandbox
            return self._tools.answers.of(report, structured=structured)
        if not record.about.has_timeout:  # nobody waits for its end, which may never come
            return self._tools.answers.of(report, structured=structured)
        identity = _identity(task, record, structured=structured)
        return {"resultType": "task", **self._state(identity, record, "working", _brief(record))}

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> HandlerResult:
        """Handle `subscriptions/listen`. It does not announce the end of tasks, so the acknowledgement names none."""
        wanted = (context.params or {}).get("notifications")
        if isinstance(wanted, Mapping) and wanted.get("taskIds") is not None:
            _require(context)
        return await self._changes.listen(context, params)

    async def get(self, context: Context, params: TaskParams) -> HandlerResult:
        """Handle `tasks/get`: return the state of the task, with the call's result if it has ended."""
        return await self._guarded(context, params, self._get)

    async def cancel(self, context: Context, params: TaskParams) -> HandlerResult:
        """Handle `tasks/cancel`: kill the command and everything it started, unless it has ended."""
        return await self._guarded(context, params, self._cancel)

    async def update(self, context: Context, params: TaskParams) -> HandlerResult:
        """Handle `tasks/update`: acknowledge it, since no task asks a question."""
        return await self._guarded(context, params, self._update)

    async def _guarded(
        self, context: Context, params: TaskParams, act: Callable[[str, str], Awaitable[TaskState]]
    ) -> HandlerResult:
        """Run one handler; every failure becomes a protocol error with a sentence."""
        _require(context)
        _check_header(context, params.task_id)
        principal = require(context, FOR_COMMANDS).principal
        try:
            return await act(principal, params.task_id)
        except UnknownProcess as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error)) from None
        except TaskcellError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from None
        except Exception:
            log.exception("A request about a task failed unexpectedly.")
            raise MCPError(code=INTERNAL_ERROR, message="Internal error; the server's log tells why.") from None

    async def _get(self, principal: str, identity: str) -> TaskState:
        kept = self._ends.get((principal, identity))
        if kept is not None:
            return kept
        task, sandbox, record = await self._find(principal, identity)
        if record.process.has_ended:
            return await self._end(identity, task, sandbox, record)
        return self._state(identity, record, "working", await _news(record))

    async def _cancel(self, principal: str, identity: str) -> TaskState:
        if (principal, identity) not in self._ends:
            task, sandbox, record = await self._find(principal, identity)
            if not record.process.has_ended:
                await sandbox.kill(record.process, protocol.Reason.CANCEL)
                if record.process.has_ended:
                    # Read its end now: perhaps no client will, and a sandbox that serves one call waits for that.
                    await self._end(identity, task, sandbox, record)
        return {}

    async def _update(self, principal: str, identity: str) -> TaskState:
        if (principal, identity) not in self._ends:
            await self._find(principal, identity)
        return {}

    async def _find(self, principal: str, identity: str) -> tuple[TaskKey, Sandbox, Record]:
        """Return the process of a task id, with its task and sandbox. Raises UnknownProcess."""
        try:
            key, process_id, _, task_id = _parse(identity)
            task = TaskKey(principal, task_id)
            sandbox, record = await find_process(self._gateway.pool, task, process_id)
            known = record.about.key
            if known and hmac.compare_digest(known.encode(), key.encode()):
                return task, sandbox, record
        except (ValueError, UnknownProcess):
            pass
        raise UnknownProcess(
            "There is no such task, or it was forgotten: its sandbox was closed or replaced, or too many newer "
            "commands have finished in it. Run the command again if you need its result."
        )

    async def _end(self, identity: str, task: TaskKey, sandbox: Sandbox, record: Record) -> TaskState:
        """Return the final state of a task, with the result that its call would have had."""
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
        if record.is_cancelled or (killed and result.status is Status.KILLED):
            state = self._state(identity, record, "cancelled", result.ending())
        else:
            state = self._state(identity, record, "completed", result.ending())
            answer = self._tools.answers.of(result, structured=_parse(identity)[2])
            state["result"] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
        if sandbox.profile.reuse is Reuse.CALL:
            self._ends[task.principal, identity] = state
            while len(self._ends) > KEPT_ENDS:
                self._ends.popitem(last=False)
        return state

    def _state(self, identity: str, record: Record, status: str, message: str) -> TaskState:
        """Return the fields that describe a task in every answer."""
        about, over = record.about, status != "working"
        age = record.lasted if over else record.age
        # The process is known at least this long after its end, and a client must not give up while it may still run.
        ttl = age + self._gateway.idle_ttl
        if not over and about.has_timeout:
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


def _identity(task: TaskKey, record: Record, *, structured: bool) -> str:
    """Return an id that fits into a header and looks opaque. It says too whether the call asked for structure."""
    words = f"{record.about.key} {record.about.process_id} {_STRUCTURED if structured else _TEXT} {task.task}"
    return base64.urlsafe_b64encode(words.encode()).decode().rstrip("=")


def _parse(identity: str) -> tuple[str, str, bool, str]:
    """Return the key and process of an id, whether its call asked for structure, and its task. Raises ValueError."""
    if len(identity) > MAX_ID:
        raise ValueError("too long")
    words = base64.urlsafe_b64decode(identity + "=" * (-len(identity) % 4)).decode()
    key, process_id, form, task_id = words.split(" ", 3)
    return key, process_id, form == _STRUCTURED, task_id


def task_of(identity: str) -> str:
    """The name of the task that an id is about. Raises ValueError."""
    return _parse(identity)[3]


async def _news(record: Record) -> str:
    """Describe a running command: its age, how much it has written, and its newest lines."""
    newest = ""
    with suppress(SandboxLost):
        newest = await newest_output(record.process)
    brief = _brief(record)
    return f"{brief}, the newest: {shown(newest, len(newest))}" if newest else brief


def _brief(record: Record) -> str:
    size, after = sum(record.process.written), format_milliseconds(record.process.duration_ms)
    return f"running for {after} as process {record.about.process_id}; {size:,} bytes of output so far"


def _timestamp(when: float) -> str:
    """Format seconds since the epoch as ISO 8601."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _declares(context: Context) -> bool:
    """Whether this request declares the extension. Results of earlier revisions cannot hold a task."""
    capabilities = context.session.client_capabilities
    return (
        context.protocol_version in MODERN_PROTOCOL_VERSIONS
        and capabilities is not None
        and EXTENSION in (capabilities.extensions or {})
    )


def _require(context: Context) -> None:
    """Raise MCPError if the request does not declare the extension."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(code=METHOD_NOT_FOUND, message="Method not found", data=context.method)
    if not _declares(context):
        raise MCPError(
            code=MISSING_REQUIRED_CLIENT_CAPABILITY,
            message=f"Tasks need the extension {EXTENSION}; declare it in the capabilities of each request.",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _check_header(context: Context, identity: str) -> None:
    """Raise MCPError if the header that HTTP requests are routed by does not name the task."""
    if context.request is not None and decode_header_value(context.request.headers.get(MCP_NAME_HEADER)) != identity:
        raise MCPError(code=HEADER_MISMATCH, message="The header Mcp-Name must hold the request's taskId.")
