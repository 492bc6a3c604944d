"""`tools/list` and `tools/call`: the gateway's tools in MCP's words. Whatever happens in a call becomes an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)

from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.answer import (
    PROCESS_SCHEMA,
    RUN_SCHEMA,
    SANDBOX_SCHEMA,
    error_answer,
    process_answer,
    run_answer,
    sandbox_answer,
)
from taskcell.mcp.file_answer import FILE_SCHEMAS, file_answer
from taskcell.mcp.progress import Progress
from taskcell.model import ToolCall
from taskcell.process.process import Process
from taskcell.tools import process as process_tool
from taskcell.tools.process import ProcessTool
from taskcell.tools.tool import SANDBOX_TOOL, CommandTool, FileTool, SandboxTool, nearest

log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]


class Tools:
    """The handlers of a server's tool methods.

    Arguments:
        principal: whose tasks the calls belong to; everyone on one stdio connection is the same.
    """

    def __init__(self, gateway: Gateway, principal: str) -> None:
        self._gateway = gateway
        self._principal = principal
        self._described: Mapping[str, CommandTool] | None = None
        self._listing: Mapping[str, Tool] = {}

    @property
    def listing(self) -> Mapping[str, Tool]:
        """What `tools/list` answers, by name: the server's own tools first, then the skills' by name."""
        if self._described is not self._gateway.tools:
            self._described = self._gateway.tools
            runs = [_describe(tool, FILE_SCHEMAS.get(tool.name, RUN_SCHEMA)) for tool in self._described.values()]
            own = [_describe(self._gateway.process_tool, PROCESS_SCHEMA), _describe(SANDBOX_TOOL, SANDBOX_SCHEMA)]
            listed = sorted([*runs, *own], key=_order)
            self._listing = {tool.name: tool for tool in listed}
        return self._listing

    async def changes(self) -> AsyncIterator[None]:
        """Each time that a client which listed the tools would now be answered something else."""
        told, seen = self.listing, self._gateway.tools
        while True:
            seen = await self._gateway.tools_after(seen)
            if self.listing != told:
                told = self.listing
                yield

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """All tools on one page."""
        if params is not None and params.cursor is not None:
            raise MCPError(
                code=INVALID_PARAMS, message="Unknown cursor: the list of tools is one page; ask without a cursor."
            )
        return ListToolsResult(tools=list(self.listing.values()))

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """A tool's JSON Schema; None when there is no such tool."""
        tool = self.listing.get(name)
        return None if tool is None else tool.input_schema

    async def call(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Run one call. Only an unknown tool is a protocol error, as the specification has it."""
        if params.name not in self.listing:
            raise MCPError(
                code=INVALID_PARAMS, message=f"Unknown tool: '{params.name}'{nearest(params.name, self.listing)}."
            )
        call = ToolCall(self._principal, params.name, params.arguments or {})
        if context.meta is None or context.meta.get("progress_token") is None:
            return await self._guarded(call)

        async def report(done: float, newest: str) -> None:
            await context.session.report_progress(done, None, newest)

        progress = Progress(report)
        return await progress.tell_while(lambda: self._guarded(call, progress.watch))

    async def _guarded(self, call: ToolCall, watch: Callable[[Process], None] | None = None) -> CallToolResult:
        """Whatever happens in the call is an answer."""
        try:
            return await self._answer(call, watch)
        except TaskcellError as error:
            return error_answer(str(error))
        except anyio.get_cancelled_exc_class():
            # A cancel that is meant comes from a scope. Any other (of a task that was awaited here and cancelled
            # elsewhere) would end the dispatcher, and with it every other call of this server.
            if anyio.current_effective_deadline() == float("-inf"):
                raise
            log.exception("A stray cancellation ended a call.", tool=call.tool)
            return _internal_error()
        except Exception:
            log.exception("A call failed unexpectedly.", tool=call.tool)
            return _internal_error()

    async def _answer(self, call: ToolCall, watch: Callable[[Process], None] | None) -> CallToolResult:
        if call.tool == self._gateway.process_tool.name:
            return process_answer(await self._gateway.process(call, watch))
        if call.tool == SANDBOX_TOOL.name:
            report = await self._gateway.sandbox(call)
            return sandbox_answer(report.structured(), report.text())
        tool = self._gateway.tools[call.tool]  # it may be gone when the call ends
        if isinstance(tool, FileTool):
            return await file_answer(self._gateway, call)
        is_skill = tool.profile.kind == "skill"
        return run_answer(await self._gateway.call(call, watch), is_skill=is_skill)


def _describe(tool: CommandTool | SandboxTool | ProcessTool, output_schema: dict[str, Any]) -> Tool:
    hints = tool.annotations
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(tool.input_schema),
        output_schema=output_schema,
        annotations=ToolAnnotations(
            read_only_hint=hints.read_only,
            destructive_hint=hints.destructive,
            idempotent_hint=hints.idempotent,
            open_world_hint=hints.open_world,
        ),
    )


def _internal_error() -> CallToolResult:
    return error_answer("Internal error: the call failed in the server; see its log.")


def _order(tool: Tool) -> tuple[int, str]:
    first = ("terminal", process_tool.NAME, SANDBOX_TOOL.name, *FILE_SCHEMAS)
    return (first.index(tool.name) if tool.name in first else len(first), tool.name)
