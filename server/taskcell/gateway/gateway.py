"""The one way in for tool calls, and what tools may do through it: authorise, lease, run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import anyio

from taskcell.config.settings import LimitSettings, PoolSettings, ToolsSettings
from taskcell.engine.base import Engine
from taskcell.errors import Denied, UnknownTool
from taskcell.gateway.background import Background
from taskcell.model import Command, ProcessResult, Profile, Status, TaskKey, ToolCall
from taskcell.policy.policy import AuthorizedCommand, Policy
from taskcell.pool.pool import Pool
from taskcell.sandbox.run import run_command
from taskcell.sandbox.sandbox import Sandbox
from taskcell.schema.arguments import nearest
from taskcell.tools.tool import Tool, ToolReport, Watch


class Gateway:
    """Every tool call comes through here, whatever door it came through.

    Arguments:
        tools: the tools by name. A call keeps its tool when the tools are replaced.
        idle_ttl: seconds that an idle sandbox is kept after its last call or process.
        output_chars: characters of all the text of an answer.
        structured: every caller gets structured content, without asking.
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
        return await tool.run(self, call, watch)

    # --- for tools ---------------------------------------------------------------------------------------------

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied."""
        return self._policy.authorize(command)

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
            finally:
                del self._awaited[command.task, process_id]
            record = sandbox.processes.get(process_id) if result.status is Status.RUNNING else None
            if record is not None:
                self._background.keep(held.pop_all(), sandbox, record)
            return result

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
