"""The one way in: bind, authorise, lease, run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio

from taskcell.arguments import nearest
from taskcell.config import Settings
from taskcell.engine.base import Engine
from taskcell.errors import SandboxLost, TaskcellError, UnknownTool
from taskcell.model import ProcessResult, ToolCall
from taskcell.policy import Policy
from taskcell.pool import Pool, PoolOptions
from taskcell.slots import Slot
from taskcell.tool import SANDBOX_TOOL, CommandTool, SandboxTool


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One sandbox of a task, as the tool `sandbox` shows it. Ages in seconds, memory in bytes."""

    profile: str
    container: str
    state: str
    age_s: float
    processes: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What the tool `sandbox` answers."""

    task_id: str
    action: str
    sandboxes: tuple[SandboxInfo, ...]
    notes: tuple[str, ...] = ()

    def structured(self) -> dict[str, Any]:
        fields = ("profile", "container", "state", "age_s", "processes", "memory_bytes")
        return {
            "task_id": self.task_id,
            "action": self.action,
            "sandboxes": [{name: getattr(info, name) for name in fields} for info in self.sandboxes],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        lines = [
            f"{info.profile}: {info.state}, container {info.container}, {info.processes} processes, "
            f"{'?' if info.memory_bytes is None else info.memory_bytes >> 20} MiB, up {info.age_s:.0f} s"
            for info in self.sandboxes
        ]
        return "\n".join([*lines, *self.notes]) or "The task has no sandbox; its next command makes one."


class Gateway:
    """Every tool call comes through here, whatever brought it.

    Arguments:
        tools: what runs commands, by name. A call keeps the tool that it began with when they are replaced.
    """

    sandbox_tool: SandboxTool = SANDBOX_TOOL

    def __init__(self, tools: Mapping[str, CommandTool], policy: Policy, pool: Pool, engine: Engine) -> None:
        self.tools = tools
        self._replaced = anyio.Event()
        self._policy = policy
        self._pool = pool
        self._engine = engine

    def replace_tools(self, tools: Mapping[str, CommandTool]) -> None:
        """From now on these are the tools."""
        self.tools = tools
        replaced, self._replaced = self._replaced, anyio.Event()
        replaced.set()

    async def tools_after(self, seen: Mapping[str, CommandTool]) -> Mapping[str, CommandTool]:
        """Wait until the tools are others than those that were seen; no replacement is missed between two calls."""
        while self.tools is seen:
            await self._replaced.wait()
        return self.tools

    async def call(self, call: ToolCall) -> ProcessResult:
        """Run one command. Raises a TaskcellError when it did not run; cancelled, it has killed what it started."""
        tool = self.tools.get(call.tool)
        if tool is None:
            raise UnknownTool(f"There is no tool '{call.tool}'{nearest(call.tool, self.tools)}.")
        command = tool.bind(call)
        authorized = self._policy.authorize(command)
        async with self._pool.lease(command.task, authorized.profile) as (sandbox, notes):
            result = await sandbox.run(authorized, self._pool.next_process_id(command.task))
            return replace(result, notes=(*notes, *result.notes))

    async def sandbox(self, call: ToolCall) -> SandboxReport:
        """The tool `sandbox`: status, reset or close. Raises a TaskcellError."""
        action = self.sandbox_tool.bind(call)
        notes = []
        if action.action == "reset":
            notes += await self._pool.reset(action.task) or ["The task had no sandbox; its next command makes one."]
        elif action.action == "close":
            count = await self._pool.close_task(action.task)
            notes.append(f"{count} sandbox{'' if count == 1 else 'es'} closed; the workspace's files are deleted.")
        infos = [await self._info(slot) for slot in self._pool.of_task(action.task)]
        return SandboxReport(action.task.task, action.action, tuple(infos), tuple(notes))

    async def _info(self, slot: Slot) -> SandboxInfo:
        sandbox, age = slot.sandbox, round(time.monotonic() - slot.created, 1)
        if sandbox is None:
            return SandboxInfo(slot.shared_key[1], "", slot.state.value, age, 0, None)
        processes, memory, state = 0, None, slot.state.value
        try:
            processes = await sandbox.processes()
            memory = await self._engine.memory(sandbox.container)
        except SandboxLost:
            state = "lost"
        except TaskcellError:
            pass  # the figure is missing, the status is not
        return SandboxInfo(slot.shared_key[1], sandbox.container.name, state, age, processes, memory)


@asynccontextmanager
async def open_gateway(settings: Settings, tools: Mapping[str, CommandTool], engine: Engine) -> AsyncIterator[Gateway]:
    """A gateway with its pool; leaving closes every sandbox, shielded and bounded."""
    options = PoolOptions(
        deployment=settings.deployment_id,
        orphan_ttl=settings.pool.orphan_ttl,
        workspace_size=settings.workspace.size,
        output_chars=settings.limits.output_chars,
        spool=settings.limits.spool,
        shell=tuple(settings.terminal.shell),
        sudo_password=settings.sudo_password,
    )
    async with Pool(engine, options) as pool:
        yield Gateway(tools, Policy(settings.policy, settings.own_files, settings.secret_files), pool, engine)
