"""The one way in for tool calls, and what tools may do: authorise, lease, run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

import anyio

from taskcell.config.settings import PoolSettings
from taskcell.engine.base import Engine
from taskcell.errors import UnknownTool
from taskcell.gateway.background import Background
from taskcell.model import Command, ProcessResult, Status, ToolCall
from taskcell.policy.policy import AuthorizedCommand, Policy
from taskcell.pool.pool import Pool
from taskcell.schema.arguments import nearest
from taskcell.tools.tool import Report, Tool, Watch


class Gateway:
    """Every tool call comes through here, whatever brought it.

    Arguments:
        tools: by name. A call keeps the tool that it began with when they are replaced.
        idle_ttl: seconds that a sandbox outlives the last of its processes, unless somebody closes it.
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
    ) -> None:
        self.tools = tools
        self.pool = pool
        self.engine = engine
        self.idle_ttl = idle_ttl
        self._background = background
        self._replaced = anyio.Event()
        self._policy = policy

    def replace_tools(self, tools: Mapping[str, Tool]) -> None:
        """From now on these are the tools."""
        self.tools = tools
        replaced, self._replaced = self._replaced, anyio.Event()
        replaced.set()

    async def tools_after(self, seen: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """Wait until the tools are others than those that were seen; no replacement is missed between two calls."""
        while self.tools is seen:
            await self._replaced.wait()
        return self.tools

    async def call(self, call: ToolCall, watch: Watch | None = None) -> Report:
        """Do what one call asks for. Raises a TaskcellError when that was not possible.

        Arguments:
            watch: called with the process that the call starts, or looks at.
        """
        tool = self.tools.get(call.tool)
        if tool is None:
            raise UnknownTool(f"There is no tool '{call.tool}'{nearest(call.tool, self.tools)}.")
        return await tool.run(self, call, watch)

    # --- for tools ---------------------------------------------------------------------------------------------

    def authorize(self, command: Command) -> AuthorizedCommand:
        """Allow a command and its profile. Raises Denied."""
        return self._policy.authorize(command)

    async def run(self, command: Command, watch: Watch | None = None) -> ProcessResult:
        """Authorise a command and run it in its task's sandbox; when it has waited long enough, it goes on by itself.

        Raises a TaskcellError when it did not run; cancelled, it has killed what it started.

        Arguments:
            watch: called with the process when it is being started.
        """
        authorized = self.authorize(command)
        async with AsyncExitStack() as held:
            sandbox, notes = await held.enter_async_context(self.pool.lease(command.task, authorized.profile))
            process_id = self.pool.next_process_id(command.task)
            result = await sandbox.run(authorized, process_id, watch)
            record = sandbox.processes.get(process_id) if result.status is Status.RUNNING else None
            if record is not None:
                self._background.keep(held.pop_all(), sandbox, record)
            return replace(result, notes=(*notes, *result.notes)) if notes else result
