"""The one way in: bind, authorise, lease, run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import anyio

from taskcell.config.settings import LimitSettings, PoolSettings
from taskcell.engine.base import Engine
from taskcell.errors import BadArgument, FileRefused, SandboxLost, TaskcellError, UnknownTool
from taskcell.files.answers import FileReport
from taskcell.files.run import run_file_command
from taskcell.gateway.background import Background
from taskcell.gateway.processes import ProcessCalls, ProcessReport
from taskcell.model import Command, ProcessResult, Status, TaskKey, ToolCall
from taskcell.policy.policy import Policy
from taskcell.pool.pool import Pool
from taskcell.pool.slot import Slot
from taskcell.process.kept_output import Piece, read_piece
from taskcell.process.process import Process
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox
from taskcell.schema.arguments import nearest
from taskcell.supervisor.protocol import Stream
from taskcell.tools.process import ProcessTool, process_tool
from taskcell.tools.tool import SANDBOX_TOOL, CommandTool, FileTool, SandboxTool


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
        idle_ttl: seconds that a sandbox outlives the last of its processes, unless somebody closes it.
    """

    sandbox_tool: SandboxTool = SANDBOX_TOOL

    def __init__(
        self,
        tools: Mapping[str, CommandTool],
        policy: Policy,
        pool: Pool,
        engine: Engine,
        *,
        background: Background,
        limits: LimitSettings,
        idle_ttl: float = PoolSettings().idle_ttl,
    ) -> None:
        self.tools = tools
        self.idle_ttl = idle_ttl
        self.process_tool: ProcessTool = process_tool(limits.wait, limits.max_timeout)
        self._processes = ProcessCalls(pool, policy, limits.output_chars)
        self._background = background
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

    async def call(
        self, call: ToolCall, watch: Callable[[Process], None] | None = None, *, hand_off: bool = True
    ) -> ProcessResult:
        """Run one command. Raises a TaskcellError when it did not run; cancelled, it has killed what it started.

        Arguments:
            watch: called with the process when it is being started.
            hand_off: answer `running` when the call has waited long enough; else wait to the end.
        """
        tool = self._tool(call.tool)
        if isinstance(tool, FileTool):
            raise BadArgument(f"'{call.tool}' runs no program; use `terminal` or a skill for that.")
        command = tool.bind(call)
        authorized = self._policy.authorize(command if hand_off else replace(command, wait=None))
        async with AsyncExitStack() as held:
            sandbox, notes = await held.enter_async_context(self._pool.lease(command.task, authorized.profile))
            process_id = self._pool.next_process_id(command.task)
            result = await sandbox.run(authorized, process_id, watch, notes)
            record = sandbox.processes.get(process_id) if result.status is Status.RUNNING else None
            if record is not None:
                self._background.keep(held.pop_all(), sandbox, record)
            return result

    async def process(self, call: ToolCall, watch: Callable[[Process], None] | None = None) -> ProcessReport:
        """The tool `process`. Raises a TaskcellError."""
        return await self._processes.call(self.process_tool.bind(call), watch)

    async def find(self, task: TaskKey, process_id: str) -> tuple[Sandbox, Record]:
        """A process that is known, and its sandbox. Raises UnknownProcess."""
        return await self._processes.find(task, process_id)

    async def output(
        self, task: TaskKey, process_id: str, streams: Iterable[Stream], cursor: int, size: int
    ) -> tuple[bool, dict[Stream, Piece]]:
        """Kept bytes of a process's output from a cursor on, and whether it is a skill's.

        Raises UnknownProcess, SandboxLost.
        """
        _, record = await self._processes.find(task, process_id)
        pieces = {stream: await read_piece(record.process, stream, cursor, size) for stream in streams}
        return record.about.kind == "skill", pieces

    async def file(self, call: ToolCall) -> FileReport:
        """Run one call of a file tool. Raises FileRefused, and what `call` raises."""
        tool = self._tool(call.tool)
        if not isinstance(tool, FileTool):
            raise BadArgument(f"'{call.tool}' is no file tool.")
        return await self._run_file_command(tool.bind(call), tool.output_chars)

    async def fetch(self, task: TaskKey, path: str) -> FileReport:
        """Read a whole file as `read_file` may. Raises FileRefused, and what `call` raises."""
        tool = self._tool("read_file")
        assert isinstance(tool, FileTool)
        return await self._run_file_command(tool.fetch(task, path), tool.output_chars)

    async def _run_file_command(self, command: Command, output_chars: int) -> FileReport:
        authorized = self._policy.authorize(command)
        async with self._pool.lease(command.task, authorized.profile) as (sandbox, notes):
            try:
                answer = await run_file_command(sandbox, authorized, output_chars)
            except FileRefused as refused:
                raise refused.noted(notes) from None
            return FileReport(command.task.task, answer, tuple(notes))

    def _tool(self, name: str) -> CommandTool:
        tool = self.tools.get(name)
        if tool is None:
            raise UnknownTool(f"There is no tool '{name}'{nearest(name, self.tools)}.")
        return tool

    async def sandbox(self, call: ToolCall) -> SandboxReport:
        """The tool `sandbox`: status, reset or close. Raises a TaskcellError."""
        action = self.sandbox_tool.bind(call)
        notes = []
        if action.action == "reset":
            notes += await self._pool.reset(action.task) or ["The task had no sandbox; its next command makes one."]
        elif action.action == "close":
            count = await self._pool.close_task(action.task)
            files = "stay" if self._pool.keeps_files else "are deleted"
            notes.append(f"{count} sandbox{'' if count == 1 else 'es'} closed; the workspace's files {files}.")
        infos = [await self._info(slot) for slot in await self._pool.of_task(action.task)]
        return SandboxReport(action.task.task, action.action, tuple(infos), tuple(notes))

    async def _info(self, slot: Slot) -> SandboxInfo:
        sandbox, age = slot.sandbox, round(time.monotonic() - slot.created, 1)
        if sandbox is None:
            return SandboxInfo(slot.shared_key[1], "", slot.state.value, age, 0, None)
        processes, memory, state = 0, None, slot.state.value
        try:
            processes = await sandbox.living()
            memory = await self._engine.memory(sandbox.container)
        except SandboxLost:
            state = "lost"
        except TaskcellError:
            pass  # the figure is missing, the status is not
        return SandboxInfo(slot.shared_key[1], sandbox.container.name, state, age, processes, memory)
