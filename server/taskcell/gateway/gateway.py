"""The one way in for tool calls, and what tools may do through it: authorise, lease, run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from types import MappingProxyType

import anyio

from taskcell.audit.log import AuditFailed, AuditLog
from taskcell.config.settings import LimitSettings, PoolSettings, ToolsSettings
from taskcell.egress.egress import Egress
from taskcell.engine.base import Engine
from taskcell.errors import Denied, ErrorCode, HeldElsewhere, MustAsk, TaskcellError, UnknownTool
from taskcell.files.history import FileHistory
from taskcell.gateway.background import Background
from taskcell.gateway.lifetimes import Lifetimes
from taskcell.gateway.news import News
from taskcell.gateway.ports import PortConnections
from taskcell.gateway.trail import Trail
from taskcell.model import Command, ProcessResult, Profile, Reuse, Status, TaskKey, ToolCall
from taskcell.policy.policy import AuthorizedCommand, Policy
from taskcell.pool.copies import Copies
from taskcell.pool.pool import Pool
from taskcell.process.record import Record
from taskcell.sandbox.run import run_command
from taskcell.sandbox.sandbox import Sandbox, SandboxState
from taskcell.schema.arguments import nearest
from taskcell.spans import span
from taskcell.text import shown
from taskcell.tools.binding import task_key
from taskcell.tools.catalog import is_selected
from taskcell.tools.environments import Environments
from taskcell.tools.files import FileTool
from taskcell.tools.tool import Tool, ToolReport, Watch

_ALL_TOOLS = ToolsSettings()
_NONE: Mapping[str, str] = MappingProxyType({})


class Gateway:
    """Every tool call comes through here, whatever door it came through.

    Arguments:
        tools: the tools by name. A call keeps its tool when the tools are replaced.
        selection: which of them clients may see and call.
        idle_ttl: seconds that an idle sandbox is kept after its last call or process.
        output_chars: characters of all the text of an answer.
        structured: every caller gets structured content, without asking.
        audit: gets a line for each decision and each end; None writes none.
        egress: what sandboxes reach by name, for metrics.
        environments, copies: know what tasks were opened with; make snapshots and forks.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        policy: Policy,
        pool: Pool,
        engine: Engine,
        *,
        background: Background,
        environments: Environments,
        copies: Copies,
        idle_ttl: float = PoolSettings().idle_ttl,
        output_chars: int = LimitSettings().output_chars,
        structured: bool = ToolsSettings().structured,
        selection: ToolsSettings = _ALL_TOOLS,
        audit: AuditLog | None = None,
        egress: Egress | None = None,
    ) -> None:
        self.tools = tools
        self._selection = selection
        #: Why tools cannot run, by name: they are not offered, and a call of one says the same.
        self.withheld: Mapping[str, str] = _NONE
        #: What clients are offered, by name, in the order of `tools/list`.
        self.offered = self._offer()
        #: Set once it is known which tools can run; None if nobody finds that out.
        self.offer_known: anyio.Event | None = None
        self.pool = pool
        self.environments, self.copies = environments, copies
        self.lifetimes = Lifetimes(environments.opened, pool)
        self.engine = engine
        self.egress = egress
        self.idle_ttl, self.output_chars = idle_ttl, output_chars
        self.structured = structured
        self.file_history = FileHistory()
        self.background = background
        self._replaced = anyio.Event()
        self._policy = policy
        self.trail = Trail(audit)
        self.ports = PortConnections(pool, self.authorize, self.trail)
        #: Called with each call that has ended, its outcome, and its seconds.
        self.observers: list[Callable[[ToolCall, str, float], None]] = []
        #: What happens to tasks, as it happens.
        self.news = News()
        self.observers.append(self.news.called)
        pool.on_notes = self.news.noted
        #: The processes that calls wait for: where each runs, by its task and its name there.
        self.awaited: dict[tuple[TaskKey, str], Sandbox] = {}

    def replace_tools(self, tools: Mapping[str, Tool], withheld: Mapping[str, str] = _NONE) -> None:
        """Use these tools from now on, and offer them but for those withheld, each with the reason why it cannot run.

        Nothing happens if all of it is as before.
        """
        if tools is self.tools and withheld == self.withheld:
            return
        self.tools, self.withheld = tools, withheld
        self.offered = self._offer()
        replaced, self._replaced = self._replaced, anyio.Event()
        replaced.set()

    def _offer(self) -> Mapping[str, Tool]:
        chosen = self._selection
        return {
            name: tool for name, tool in self.tools.items() if name not in self.withheld and is_selected(chosen, tool)
        }

    async def offered_after(self, seen: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """Wait until the offer is not `seen` any more, and return it. No change between two calls is missed."""
        while self.offered is seen:
            await self._replaced.wait()
        return self.offered

    def may_call(self, name: str) -> bool:
        """Whether clients may call a tool: also one that is not offered because it cannot run now, to learn why."""
        tool = self.tools.get(name)
        return tool is not None and is_selected(self._selection, tool)

    async def call(self, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        """Do what one call asks for. Raises a TaskcellError if that is impossible.

        Arguments:
            watch: called with the process that the call starts or inspects.
        """
        if not self.may_call(call.tool):
            raise UnknownTool(f"There is no tool {shown(call.tool)}{nearest(call.tool, self.offered)}.")
        tool = self.tools[call.tool]
        self.trail.begin()
        began, outcome = time.monotonic(), "refused"
        try:
            tool = await self._in_environment(tool, call)
            if tool.profile is None:
                self.trail.acted(call, tool.check(call))
            report = await tool.run(self, call, watch)
            outcome = "failed" if report.is_error else "done"
        except TaskcellError as error:
            outcome = "denied" if isinstance(error, Denied) else "refused"
            self.news.refused(call, error)
            raise
        except anyio.get_cancelled_exc_class():
            outcome = "cancelled"
            raise
        finally:
            for observe in self.observers:
                observe(call, outcome, time.monotonic() - began)
        return report

    async def _in_environment(self, tool: Tool, call: ToolCall) -> Tool:
        """The tool as the environment of the call's task has it. Raises BadArgument."""
        own = tool.is_of_terminal and self.environments.is_on  # else nothing is checked twice
        return await self.environments.tool(tool, task_key(call, tool.check(call))) if own else tool

    async def tool_of(self, name: str, task: TaskKey) -> Tool:
        """A tool as the task's environment has it. Raises KeyError, BadArgument."""
        return await self.environments.tool(self.tools[name], task)

    @asynccontextmanager
    async def file_call(self, call: ToolCall) -> AsyncIterator[tuple[Sandbox, AuthorizedCommand]]:
        """A call of a file tool whose bytes a door streams itself, with the task's sandbox for as long as that takes.

        Raises a TaskcellError: there is no such tool here, or it may not work on this path of the workspace.
        """
        tool = self.tools.get(call.tool)
        if not isinstance(tool, FileTool) or not self.may_call(call.tool):
            sentence = f"This server offers no tool '{call.tool}', so files are not served this way."
            raise TaskcellError(sentence, code=ErrorCode.PERMISSION_DENIED)
        self.trail.begin()
        began, outcome = time.monotonic(), "refused"
        try:
            task = TaskKey(call.principal, str(call.arguments["task_id"]))
            own = await self.environments.tool(tool, task)
            assert isinstance(own, FileTool)
            command = own.in_workspace(call)
            await self.check_here(command.task)
            authorized, reads = self.authorize(command), own.annotations.read_only
            async with self.pool.lease(command.task, authorized.profile, changes=not reads) as (sandbox, _):
                outcome = "failed"
                yield sandbox, authorized
                outcome = "done"
        except TaskcellError as error:
            self.news.refused(call, error)
            raise
        finally:
            for observe in self.observers:
                observe(call, outcome, time.monotonic() - began)

    async def check_here(self, task: TaskKey) -> None:
        """Raise HeldElsewhere if another server of the deployment has a task; else it is this one's from now on."""
        found = await self.pool.holder(task)
        if found.door is not None:
            raise HeldElsewhere(found.socket)

    # --- for tools ---------------------------------------------------------------------------------------------

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied, AuditFailed."""
        try:
            with span("authorize", tool=command.tool):
                authorized = self._policy.authorize(command)
        except Denied as denied:
            self.trail.decided(command, "ask" if isinstance(denied, MustAsk) else "deny", denied.rule)
            raise
        self.trail.decided(command, "confirmed" if command.confirmed else "allow", authorized.rule)
        return authorized

    def tools_with(self, program: str, image: str) -> Sequence[str]:
        """Return the names of the offered tools that have a program or Python module, in another image than `image`."""
        return [
            name
            for name, tool in self.offered.items()
            if program in tool.programs and tool.profile and tool.profile.image != image
            if self._is_allowed(tool.profile)
        ]

    def _is_allowed(self, profile: Profile) -> bool:
        try:
            self._policy.authorize_profile(profile)
        except Denied:
            return False
        return True

    async def run(self, command: Command, watch: Watch | None = None) -> ProcessResult:
        """Authorise a command and run it in its task's sandbox; return its result after at most the command's `wait`.

        A command that outlives its `wait` goes on, and its sandbox stays leased until it ends. On cancellation the
        command is killed first. Raises a TaskcellError if the command did not run.

        Arguments:
            watch: called with the process once its start was requested.
        """
        authorized = self.authorize(command)
        async with AsyncExitStack() as held:
            with span("lease", tool=command.tool):
                sandbox, notes = await held.enter_async_context(self.pool.lease(command.task, authorized.profile))
            process_id = self.pool.next_process_id(command.task)
            self.awaited[command.task, process_id] = sandbox
            said = [*command.notes, *notes]
            try:
                with span("run", tool=command.tool, process=process_id):
                    result = await run_command(sandbox, authorized, process_id, watch, said, elsewhere=self.tools_with)
            except BaseException:
                with suppress(AuditFailed):  # the call fails anyway
                    self.note_end(command.task, sandbox, process_id)
                raise
            finally:
                del self.awaited[command.task, process_id]
            record = self.note_end(command.task, sandbox, process_id)
            if record is not None and result.status is Status.RUNNING:
                if record.about.has_timeout or sandbox.profile.reuse is Reuse.CALL:
                    serving = held.pop_all()
                else:
                    serving = AsyncExitStack()
                    serving.enter_context(self.pool.holding(command.task, sandbox, serves=True))
                end = partial(self.ended, command.task, record, closed=False, was_awaited=False)
                self.background.keep(serving, sandbox, record, end)
            return result

    def note_end(self, task: TaskKey, sandbox: Sandbox, process_id: str) -> Record | None:
        """Write that a process has ended, unless it runs; return what is known of it. Raises AuditFailed."""
        record = sandbox.processes.get(process_id)
        if record is not None and record.process.has_ended:
            self.ended(task, record, closed=sandbox.state is SandboxState.CLOSED, was_awaited=True)
        return record

    def ended(self, task: TaskKey, record: Record, *, closed: bool, was_awaited: bool) -> None:
        """Write that a process has ended, and tell it. Raises AuditFailed."""
        self.trail.ended(task, record, closed=closed)
        self.news.ended(task, record, closed=closed, was_awaited=was_awaited)

    # --- the end -----------------------------------------------------------------------------------------------

    async def end_calls(self) -> None:
        """Have every call that waits for a command return: the command is killed, with everything that it started.

        Where the server leaves its sandboxes to the next one, the command goes on instead, as after its `wait`.
        """
        async with anyio.create_task_group() as ending:
            for (_, process_id), sandbox in tuple(self.awaited.items()):
                record = sandbox.processes.get(process_id)
                if record is None:
                    continue
                if self.pool.hands_over:
                    record.process.patience.cancel()
                else:
                    ending.start_soon(sandbox.kill, record.process)
