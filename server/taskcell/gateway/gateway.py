"""The one way in for tool calls, and what tools may do through it: authorise, lease, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import anyio

from taskcell.audit.log import AuditFailed, AuditLog
from taskcell.config.settings import LimitSettings, PoolSettings, ToolsSettings
from taskcell.engine.base import Engine
from taskcell.errors import Denied, UnknownTool
from taskcell.gateway.background import Background
from taskcell.gateway.trail import Trail
from taskcell.model import Command, ProcessResult, Profile, Status, TaskKey, ToolCall
from taskcell.policy.policy import AuthorizedCommand, Policy
from taskcell.pool.pool import Pool
from taskcell.process.record import Record
from taskcell.sandbox.run import run_command
from taskcell.sandbox.sandbox import Sandbox, SandboxState
from taskcell.schema.arguments import nearest
from taskcell.tools.tool import Tool, ToolReport, Watch


class Gateway:
    """Every tool call comes through here, whatever door it came through.

    Arguments:
        tools: the tools by name. A call keeps its tool when the tools are replaced.
        idle_ttl: seconds that an idle sandbox is kept after its last call or process.
        output_chars: characters of all the text of an answer.
        structured: every caller gets structured content, without asking.
        audit: gets a line for each decision and each end; None writes none.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        policy: Policy,
        pool: Pool,
        engine: Engine,
        *,
        background: Background,
        idle_ttl: float = PoolSettings().idle_ttl,
        output_chars: int = LimitSettings().output_chars,
        structured: bool = ToolsSettings().structured,
        audit: AuditLog | None = None,
    ) -> None:
        self.tools = tools
        self.pool = pool
        self.engine = engine
        self.idle_ttl = idle_ttl
        self.output_chars = output_chars
        self.structured = structured
        self._background = background
        self._replaced = anyio.Event()
        self._policy = policy
        self._trail = Trail(audit)
        #: The processes that calls wait for: where each runs, by its task and its name there.
        self._awaited: dict[tuple[TaskKey, str], Sandbox] = {}

    def replace_tools(self, tools: Mapping[str, Tool]) -> None:
        """Use these tools from now on."""
        self.tools = tools
        replaced, self._replaced = self._replaced, anyio.Event()
        replaced.set()

    async def tools_after(self, seen: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """Wait until the tools are not `seen` any more, and return them. No replacement between two calls is missed."""
        while self.tools is seen:
            await self._replaced.wait()
        return self.tools

    async def call(self, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        """Do what one call asks for. Raises a TaskcellError if that is impossible.

        Arguments:
            watch: called with the process that the call starts or inspects.
        """
        tool = self.tools.get(call.tool)
        if tool is None:
            raise UnknownTool(f"There is no tool '{call.tool}'{nearest(call.tool, self.tools)}.")
        if tool.profile is None:
            self._trail.acted(call, tool.check(call))
        return await tool.run(self, call, watch)

    # --- for tools ---------------------------------------------------------------------------------------------

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied, AuditFailed."""
        try:
            authorized = self._policy.authorize(command)
        except Denied as denied:
            self._trail.decided(command, "deny", denied.rule)
            raise
        self._trail.decided(command, "allow", authorized.rule)
        return authorized

    def tools_with(self, program: str, image: str) -> Sequence[str]:
        """Return the names of the tools that have a program or Python module, in another image than `image`."""
        return [
            name
            for name, tool in self.tools.items()
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
            sandbox, notes = await held.enter_async_context(self.pool.lease(command.task, authorized.profile))
            process_id = self.pool.next_process_id(command.task)
            self._awaited[command.task, process_id] = sandbox
            try:
                result = await run_command(sandbox, authorized, process_id, watch, notes, elsewhere=self.tools_with)
            except BaseException:
                with suppress(AuditFailed):  # the call fails anyway
                    self._note_end(command.task, sandbox, process_id)
                raise
            finally:
                del self._awaited[command.task, process_id]
            record = self._note_end(command.task, sandbox, process_id)
            if record is not None and result.status is Status.RUNNING:
                end = partial(self._trail.ended, command.task, record, closed=False)
                self._background.keep(held.pop_all(), sandbox, record, end)
            return result

    def _note_end(self, task: TaskKey, sandbox: Sandbox, process_id: str) -> Record | None:
        """Write that a process has ended, unless it runs; return what is known of it. Raises AuditFailed."""
        record = sandbox.processes.get(process_id)
        if record is not None and record.process.has_ended:
            self._trail.ended(task, record, closed=sandbox.state is SandboxState.CLOSED)
        return record

    # --- the end -----------------------------------------------------------------------------------------------

    async def end_calls(self) -> None:
        """Have every call that waits for a command return: the command is killed, with everything that it started.

        Where the server leaves its sandboxes to the next one, the command goes on instead, as after its `wait`.
        """
        async with anyio.create_task_group() as ending:
            for (_, process_id), sandbox in tuple(self._awaited.items()):
                record = sandbox.processes.get(process_id)
                if record is None:
                    continue
                if self.pool.hands_over:
                    record.process.patience.cancel()
                else:
                    ending.start_soon(sandbox.kill, record.process)
