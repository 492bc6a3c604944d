"""The tool `process`: looks after a task's processes, in whichever of its sandboxes they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from taskcell.errors import BadArgument, SandboxLost, UnknownProcess
from taskcell.model import ProcessResult, TaskKey
from taskcell.policy.policy import Policy
from taskcell.pool.pool import Pool
from taskcell.process.kept_output import Reading, measure, read_overview, read_page
from taskcell.process.output import Excerpt
from taskcell.process.process import Process, Totals
from taskcell.process.record import Record
from taskcell.process.result import output_room, result_of, status_of
from taskcell.process.table import FINISHED_MAX
from taskcell.resource_uris import output_address
from taskcell.sandbox.sandbox import Sandbox, SandboxState
from taskcell.tools.process import ProcessAction

#: Seconds without a further byte after which what a program has said counts as said: a prompt, a line of a build.
QUIET = 0.1
#: Seconds for a process to take what is written to it; one that reads takes it at once.
WRITE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a list. Times in seconds; `output_bytes` of both streams."""

    process_id: str
    status: str
    exit_code: int | None
    tool: str
    command: str
    age_s: float
    output_bytes: int
    pty: bool


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What the tool `process` answers: a list, or one process with its output.

    Arguments:
        result: how the process stands; its cursors are where output goes on.
        lost_bytes: of the output that was asked for, kept no more. more_bytes: there already, after the cursors.
        written_bytes: of `data`; None where nothing was to be written.
    """

    task_id: str
    action: str
    processes: tuple[ProcessInfo, ...] = ()
    result: ProcessResult | None = None
    lost_bytes: int = 0
    more_bytes: int = 0
    written_bytes: int | None = None
    is_skill: bool = False

    def structured(self) -> dict[str, Any]:
        if self.result is None:
            fields = ProcessInfo.__slots__
            listed = [{name: getattr(info, name) for name in fields} for info in self.processes]
            return {"task_id": self.task_id, "action": self.action, "processes": listed, "notes": []}
        written = {} if self.written_bytes is None else {"written_bytes": self.written_bytes}
        more = {"lost_bytes": self.lost_bytes, "more_bytes": self.more_bytes}
        return {**self.result.structured(), "action": self.action, **more, **written}

    def text(self) -> str:
        """A list as a person reads it."""
        lines = [
            f"{info.process_id}: {info.status}{'' if info.exit_code is None else f' {info.exit_code}'}, "
            f"{info.age_s:.0f} s old, {info.output_bytes:,} bytes of output: {info.tool} {info.command!r}"
            for info in self.processes
        ]
        return "\n".join(lines) or "The task has no processes."


class ProcessCalls:
    """Does what `process` asks for.

    Arguments:
        output_chars: characters of output in one answer.
    """

    def __init__(self, pool: Pool, policy: Policy, output_chars: int) -> None:
        self._pool = pool
        self._policy = policy
        self._output_chars = output_chars

    async def call(self, asked: ProcessAction, watch: Callable[[Process], None] | None = None) -> ProcessReport:
        """Raises UnknownProcess, BadArgument, Denied, SandboxLost."""
        if asked.action == "list":
            return ProcessReport(asked.task.task, asked.action, tuple(await self._list(asked.task)))
        sandbox, record = await self.find(asked.task, asked.process_id)
        if watch is not None:
            watch(record.process)
        # What is new is what comes after this.
        before = (0, 0) if asked.is_about_all else await measure(record.process)
        written = await self._act(sandbox, record, asked)
        reading, notes = await self._read(sandbox, record, asked, before)
        if record.process.has_ended:
            record.tell()
        if written is not None and written < len(asked.data.encode()):
            rest = (
                f"Only {written} bytes were taken within {WRITE_TIMEOUT:g} s: it does not read. Write the rest later."
            )
            notes.append(rest)
        if reading.more_bytes:
            cursors = f"cursor {reading.cursors[0]}"
            if record.about.kind == "skill":
                cursors += f" and stderr_cursor {reading.cursors[1]}"
            notes.append(f"There are {reading.more_bytes:,} bytes more already; ask again with {cursors}.")
        if reading.lost_bytes:
            notes.append(f"{reading.lost_bytes:,} bytes of the output are not kept any more.")
        facts, limit, ends = sandbox.facts, self._output_chars, reading.cursors
        result = result_of(record, asked.task.task, reading.texts, facts, limit=limit, notes=notes, cursors=ends)
        return ProcessReport(
            asked.task.task,
            asked.action,
            result=result,
            lost_bytes=reading.lost_bytes,
            more_bytes=reading.more_bytes,
            written_bytes=written,
            is_skill=record.about.kind == "skill",
        )

    async def find(self, task: TaskKey, process_id: str) -> tuple[Sandbox, Record]:
        """Raises UnknownProcess: also for another task's or principal's."""
        for sandbox in await self._pool.sandboxes(task):
            record = sandbox.processes.get(process_id)
            if record is not None:
                return sandbox, record
        raise UnknownProcess(
            f"There is no process '{process_id[:20]}' in this task; the action 'list' shows those that there "
            f"are. A finished one is known until its sandbox is closed or {FINISHED_MAX} newer ones have finished."
        )

    async def _list(self, task: TaskKey) -> list[ProcessInfo]:
        sandboxes = await self._pool.sandboxes(task)
        found = [(sandbox, record) for sandbox in sandboxes for record in sandbox.processes]
        found.sort(key=lambda pair: pair[1].about.started)
        return [self._info(sandbox, record) for sandbox, record in found]

    @staticmethod
    def _info(sandbox: Sandbox, record: Record) -> ProcessInfo:
        about, process = record.about, record.process
        status, code = status_of(process, closed=sandbox.state is SandboxState.CLOSED)
        age = round(max(0.0, time.time() - about.started), 1)
        size, tool = sum(process.written), about.tool
        return ProcessInfo(about.process_id, status.value, code, tool, about.text, age, size, about.is_terminal)

    async def _act(self, sandbox: Sandbox, record: Record, asked: ProcessAction) -> int | None:
        """Do what changes the process; answers how many bytes were written to it."""
        process, action = record.process, asked.action
        if action == "kill":
            await sandbox.kill(record.process)
        elif action == "wait":
            with anyio.move_on_after(asked.wait):
                await process.over()
        elif process.has_ended and action != "poll":
            raise BadArgument(f"The process '{asked.process_id}' has ended; poll it for its output.")
        elif action == "write":
            return await self._write(sandbox, record, asked)
        elif action == "close_stdin":
            self._check_open(record)
            await process.input.close(is_terminal=record.about.is_terminal)
        elif action == "signal":
            await process.signal(asked.signal)
        elif action == "resize":
            if not record.about.is_terminal:
                raise BadArgument(f"The process '{asked.process_id}' has no terminal: start it with 'pty'.")
            await process.resize(*asked.size)
        return None

    async def _write(self, sandbox: Sandbox, record: Record, asked: ProcessAction) -> int:
        self._check_open(record)
        for command in asked.commands(record.about.tool, sandbox.profile.profile):
            self._policy.authorize(command)
        return await record.process.input.write(asked.data.encode(), WRITE_TIMEOUT)

    @staticmethod
    def _check_open(record: Record) -> None:
        if not record.process.input.is_open:
            raise BadArgument(
                f"The standard input of '{record.about.process_id}' is closed: start a command with 'background' or "
                "'pty' to write to it."
            )

    async def _read(
        self, sandbox: Sandbox, record: Record, asked: ProcessAction, before: Totals
    ) -> tuple[Reading, list[str]]:
        """The output that is asked for; where the sandbox is lost, none, with a note."""
        process = record.process
        ansi, room = record.about.is_terminal and not asked.strip_ansi, output_room(self._output_chars)
        cursors = None if asked.cursor is None else (asked.cursor, asked.stderr_cursor)
        if cursors is None and not asked.is_about_all:
            cursors = before
        try:
            if asked.action in ("poll", "write") and asked.wait > 0:
                await self._news(process, (0, 0) if cursors is None else cursors, asked.wait)
            if cursors is None:
                where = output_address(asked.task.task, record.about.process_id)
                return await read_overview(process, room, where, ansi=ansi), []
            return await read_page(process, cursors, room, ansi=ansi), []
        except SandboxLost:
            if not process.has_ended:
                raise
            none = (Excerpt("", 0), Excerpt("", 0))
            lost = max(0, sum(process.written) - sum(cursors or (0, 0)))
            return Reading(none, cursors or process.written, lost, 0), ["Its output went with its sandbox."]

    @staticmethod
    async def _news(process: Process, seen: Totals, seconds: float) -> None:
        """Wait for output beyond the cursors, and then until no more comes for a moment; or for the end."""
        with anyio.move_on_after(seconds):
            await process.news(seen)
            while not process.has_ended:
                now = process.written
                with anyio.move_on_after(QUIET) as quiet:
                    await process.news(now)
                if quiet.cancelled_caught:
                    return
