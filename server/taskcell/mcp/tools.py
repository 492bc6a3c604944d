"""`tools/list` and `tools/call`: the gateway's tools in MCP's terms. Every outcome of a call becomes an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
)
from mcp_types import Tool as McpTool

from taskcell.caller import Scope
from taskcell.errors import ErrorCode, MustAsk, SandboxLost, TaskcellError, TaskMoved
from taskcell.gateway.admission import Admission, EndedByServer
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.answer import Answers, Failure
from taskcell.mcp.client_log import ClientLog
from taskcell.mcp.confirmation import Confirmation
from taskcell.mcp.described import described
from taskcell.mcp.egress_questions import EgressQuestions
from taskcell.mcp.handed import Handed
from taskcell.mcp.neighbours import Neighbours
from taskcell.mcp.passed_on import CALL
from taskcell.mcp.principal import caller_of, missing
from taskcell.mcp.progress import Progress, is_wanted
from taskcell.mcp.scopes import check_arguments, scopes_of
from taskcell.model import ToolCall
from taskcell.process.process import Process
from taskcell.schema.arguments import nearest
from taskcell.text import shown
from taskcell.tools.binding import task_key
from taskcell.tools.tool import Tool, ToolReport, Watch

log = structlog.get_logger(__name__)

#: Seconds that the first list of tools waits for the engine to say what can run: many clients never read a second one.
#: It answers in 50 ms where it runs, and on a busy machine what talks to it is imported in half a second; where it
#: hangs, the list is what an earlier server knew.
OFFER_TIMEOUT = 2.0

Context = ServerRequestContext[Any, Any]

#: Actions of tools that only look.
_LOOKS = ("list", "poll", "wait", "status")
#: Attempts at a call whose task moves to another server while it waits for its sandbox.
MOVES = 5
#: The key of a request's `_meta` by which a program waits for a command's end, however long that takes.
TO_END = "taskcell/to_end"
#: Under this key a connection's state has the listing that its client was last shown; None while it waits for one.
SHOWN = "taskcell/listing"


class Tools:
    """The handlers of a server's tool methods.

    Arguments:
        admission: counts the calls of this server, and bounds them.
        client_log: tells clients what happens to their tasks.
    """

    def __init__(self, gateway: Gateway, admission: Admission, client_log: ClientLog) -> None:
        self.gateway = gateway
        self.answers = Answers(gateway.output_chars, gateway.structured)
        self.admission = admission
        self._confirmation = Confirmation()
        self._client_log = client_log
        self.handed = Handed()
        self.neighbours = Neighbours(gateway, self._confirmation, client_log)
        self._egress = EgressQuestions(gateway, self._confirmation)
        self._described: Mapping[str, Tool] | None = None
        self._listing: Mapping[str, McpTool] = {}

    @property
    def listing(self) -> Mapping[str, McpTool]:
        """What `tools/list` returns to those who ask for output schemas, by name."""
        if self._described is not self.gateway.offered:
            self._described = self.gateway.offered
            self._listing = {name: described(tool, self.answers.output_chars) for name, tool in self._described.items()}
        return self._listing

    async def changes(self) -> AsyncIterator[None]:
        """Yield each time that `tools/list` would return something else than before."""
        before, seen = self.listing, self.gateway.offered
        while True:
            seen = await self.gateway.offered_after(seen)
            if self.listing != before:
                before = self.listing
                yield

    async def list(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """Handle `tools/list`: all tools that the caller may use, on one page."""
        if params is not None and params.cursor is not None:
            raise MCPError(
                code=INVALID_PARAMS, message="Unknown cursor: the list of tools is one page; leave out the cursor."
            )
        await self._offer_known(context.session._connection.state)
        caller, own, listing = caller_of(context), self.gateway.tools, self.listing
        tools = [shown for name, shown in listing.items() if caller.may(scopes_of(own[name]))]
        if not self.answers.asked(context.meta):
            tools = [tool.model_copy(update={"output_schema": None}) for tool in tools]
        return ListToolsResult(tools=tools)

    async def _offer_known(self, connection: dict[str, Any]) -> None:
        """Wait until it is known what can run, and note that the client has the list of then."""
        connection[SHOWN] = None  # whatever changes meanwhile, the answer has it
        try:
            if self.gateway.offer_known is not None:
                with anyio.move_on_after(OFFER_TIMEOUT):
                    await self.gateway.offer_known.wait()
        finally:
            connection[SHOWN] = self.listing

    def scopes(self, name: str) -> frozenset[Scope]:
        """Return the scopes of which a call of that tool needs one; none if there is no such tool."""
        tool = self.gateway.tools.get(name)
        return frozenset() if tool is None else scopes_of(tool)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return a tool's input schema, or None if there is no such tool."""
        tool = self.listing.get(name)
        return None if tool is None else tool.input_schema

    async def call(self, context: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        """Handle `tools/call`."""
        report = await self.report(context, params)
        if isinstance(report, InputRequiredResult | CallToolResult):
            return report
        return self.answers.of(report, structured=self.answers.asked(context.meta))

    async def report(
        self, context: Context, params: CallToolRequestParams
    ) -> ToolReport | InputRequiredResult | CallToolResult:
        """Run one call, or return the question that must be answered first, or another server's answer.

        Only an unknown tool is a protocol error, as the specification demands.
        """
        return await self._client_log.while_called(context, params, lambda: self._report(context, params))

    async def _report(
        self, context: Context, params: CallToolRequestParams
    ) -> ToolReport | InputRequiredResult | CallToolResult:
        if not self.gateway.may_call(params.name):
            raise MCPError(
                code=INVALID_PARAMS, message=f"Unknown tool: {shown(params.name)}{nearest(params.name, self.listing)}."
            )
        caller, scopes = caller_of(context), self.scopes(params.name)
        if not caller.may(scopes):
            return Failure.of(TaskcellError(missing(scopes), code=ErrorCode.PERMISSION_DENIED))
        try:
            hand_off = (context.meta or {}).get(TO_END) is not True
            call = ToolCall(caller.principal, params.name, params.arguments or {}, hand_off)
            check_arguments(caller, call.tool, call.arguments)
            for _ in range(MOVES):
                answered = await self.neighbours.call(context, call, params)
                if answered is not None:
                    return answered
                with suppress(TaskMoved):
                    return await self._answered_here(context, call, params)
            raise TaskMoved
        except TaskcellError as error:
            return Failure.of(error)

    async def _answered_here(
        self, context: Context, call: ToolCall, params: CallToolRequestParams
    ) -> ToolReport | InputRequiredResult:
        """Run one call of a task that is here, with a person's confirmation if it needs one.

        Raises TaskMoved: the task is not here any more, and nothing was run. MCPError.
        """
        resumed = self._egress.answered(call, params)
        if resumed is None:
            call = replace(call, confirmed=self._confirmation.confirmed(params))
        process_id = resumed.process_id if resumed is not None else ""
        name = (context.meta or {}).get(CALL)
        if isinstance(name, str) and self.gateway.pool.deployment.marks_owners:  # else no server can have sent it
            report = await self.handed.serve(
                name, call.principal, lambda handed: self._reported(context, call, process_id, handed.watch)
            )
            if report is None:
                raise SandboxLost("The call was cancelled.")
        else:
            report = await self._reported(context, call, process_id)
        if isinstance(report, Unconfirmed):
            answer = await self._confirmation.ask(context, report.asked)
            if isinstance(answer, InputRequiredResult):
                return answer
            report = await self._reported(context, replace(call, confirmed=answer))
        return report

    async def _reported(
        self, context: Context, call: ToolCall, process_id: str = "", also: Watch | None = None
    ) -> ToolReport | InputRequiredResult:
        """Run one call, with progress if its client wants some, and with questions that come up meanwhile.

        Arguments:
            process_id: the process of an interrupted call, to wait for instead of the call; empty for none.
            also: another one that is to know the call's process.
        """

        async def work(told: Watch) -> ToolReport:
            def watch(process: Process) -> None:
                told(process)
                if also is not None:
                    also(process)

            if process_id:
                return await self._guarded(call, lambda: self._egress.resumed(call, process_id, watch))
            return await self._guarded(call, lambda: self.gateway.call(call, watch))

        return await self._egress.during(
            context, call, lambda watch: self._told(context, call, work, watch), process_id
        )

    async def _told(
        self, context: Context, call: ToolCall, work: Callable[[Watch], Awaitable[ToolReport]], watch: Watch
    ) -> ToolReport:
        """Run one call, with progress if its client wants some."""
        if not is_wanted(context):
            return await work(watch)

        async def notify(done: float, newest: str) -> None:
            await context.session.report_progress(done, None, newest)

        progress = Progress(notify, before=lambda: self._pulling(call))

        def both(process: Process) -> None:
            watch(process)
            progress.watch(process)

        return await progress.report_while(lambda: work(both))

    async def _pulling(self, call: ToolCall) -> str:
        """How far the pull of the image is that a call waits for; empty if it waits for none."""
        images = self.gateway.engine.images
        if images is None:
            return ""
        with suppress(TaskcellError, KeyError):
            tool = self.gateway.tools[call.tool]
            tool = await self.gateway.tool_of(call.tool, task_key(call, tool.check(call)))
            needed = [tool.profile] if tool.profile else [command.profile for command in tool.commands(call)]
            for profile in needed:
                if said := await images.pulling(profile.image):
                    return said
        return ""

    async def _guarded(self, call: ToolCall, work: Callable[[], Awaitable[ToolReport]]) -> ToolReport:
        """Run one call; every failure becomes a report."""
        try:
            with self.admission.admitted(call.principal):
                return await work()
        except TaskMoved:
            raise
        except EndedByServer as error:
            if self.gateway.pool.leaving.has_begun and self._only_looks(call):
                raise TaskMoved from error
            return Failure.of(error)
        except MustAsk as asked:
            return Unconfirmed(str(asked), asked.fields(), "", asked)
        except TaskcellError as error:
            return Failure.of(error)
        except anyio.get_cancelled_exc_class():
            # A deliberate cancellation comes from a scope. Any other one (of a task that was awaited here and
            # cancelled elsewhere) would end the dispatcher, and with it every other call of this server.
            if anyio.current_effective_deadline() == float("-inf"):
                raise
            log.exception("A stray cancellation ended a call.", tool=call.tool)
            return _INTERNAL_ERROR
        except Exception:
            log.exception("A call failed unexpectedly.", tool=call.tool)
            return _INTERNAL_ERROR

    def _only_looks(self, call: ToolCall) -> bool:
        """Whether a call changes nothing, so that another server can make it again from the start."""
        return self.gateway.tools[call.tool].annotations.read_only or call.arguments.get("action") in _LOOKS


@dataclass(frozen=True, slots=True)
class Unconfirmed(Failure):
    """The report of a call that did not run, because a person must confirm it first."""

    asked: MustAsk


_INTERNAL_ERROR = Failure.of(TaskcellError("Internal error: the call failed in the server, whose log tells why."))
