"""What the tool `process` does with a task's processes, in whichever of the task's sandboxes they run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import anyio

from taskcell.errors import BadArgument, SandboxLost, UnknownProcess
from taskcell.model import Command, Profile, TaskKey
from taskcell.pool.pool import Pool
from taskcell.process.kept_output import Reading, check_cursors, measure, read_overview, read_page
from taskcell.process.output import Excerpt
from taskcell.process.process import Process, Totals
from taskcell.process.record import Record
from taskcell.process.result import output_room, result_of, status_of
from taskcell.process.table import FINISHED_MAX
from taskcell.process.until import Searched, wait_for_match
from taskcell.sandbox.egress_notes import notes_on_egress
from taskcell.sandbox.hints import hints_on
from taskcell.sandbox.listening import notes_on_listening
from taskcell.sandbox.sandbox import Sandbox, SandboxState
from taskcell.schema.arguments import nearest
from taskcell.text import shown, visible
from taskcell.tools.process_notes import WRITE_TIMEOUT, note_on_match, note_on_rest, notes_on_call
from taskcell.tools.process_report import ProcessInfo, ProcessReport
from taskcell.tools.tool import Access, Watch

PROCESS = "process"
#: Seconds of silence after which a program's output counts as complete for now, such as a prompt or a line of a build.
OUTPUT_PAUSE = 0.1
#: Seconds for what is being written to a process to go before the end of its input.
INPUT_CLOSE_TIMEOUT = 2 * WRITE_TIMEOUT

Action = Literal["list", "poll", "wait", "write", "close_stdin", "signal", "kill", "resize"]


@dataclass(frozen=True, slots=True)
class ProcessAction:
    """A checked call of the tool `process`.

    Arguments:
        process_id: empty only for `list`.
        cursor, stderr_cursor: offsets, in bytes, from which to read each stream. `cursor` None: see `is_about_all`.
        wait: seconds to wait for the end or for output.
        until: a regular expression; `wait` also ends when the output has a match of it. Empty: none.
        notes: sentences for the answer about how the arguments were taken.
        data: text for standard input.
        signal: number of the signal to send.
        size: rows and columns of the terminal.
    """

    task: TaskKey
    action: Action
    process_id: str
    cursor: int | None
    stderr_cursor: int
    wait: float
    data: str = field(repr=False)
    signal: int
    size: tuple[int, int]
    strip_ansi: bool
    until: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_about_all(self) -> bool:
        """Whether the answer shows head and tail of all output, and not only what is new."""
        return self.cursor is None and self.action in ("poll", "wait", "kill")

    def commands(self, tool: str, profile: Profile) -> tuple[Command, ...]:
        """Return what the policy's rules judge: text that is written to a shell is as powerful as a command.

        The text is judged as a command of this tool, and as one of the tool that started the process.
        """
        if self.action != "write":
            return ()
        return tuple(Command(self.task, judged, profile, (), self.data) for judged in (PROCESS, tool))


async def find_process(pool: Pool, task: TaskKey, process_id: str) -> tuple[Sandbox, Record]:
    """Return a task's process and its sandbox. Raises UnknownProcess, also if it belongs to another task."""
    sandboxes = await pool.sandboxes(task)
    for sandbox in sandboxes:
        record = sandbox.processes.get(process_id)
        if record is not None:
            return sandbox, record
    known = [record.about.process_id for sandbox in sandboxes for record in sandbox.processes]
    raise UnknownProcess(
        f"This task has no process {shown(process_id, 20)}{_nearest(process_id, known)}; the action 'list' shows its "
        f"processes. A finished process is forgotten when its sandbox is closed or {FINISHED_MAX} newer ones have "
        "finished."
    )


def _nearest(process_id: str, known: Collection[str]) -> str:
    """As `nearest`; a number alone, or with another letter or word before it, means the process of that number."""
    number = process_id.strip().lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-:# ")
    meant = f"p{number.lstrip('0')}"
    return f" (did you mean '{meant}'?)" if meant in known else nearest(process_id, known)


class ProcessCalls:
    """Carries out the actions of `process`.

    Arguments:
        output_chars: maximum characters of output in one answer.
    """

    def __init__(self, gateway: Access, output_chars: int) -> None:
        self._gateway = gateway
        self._output_chars = output_chars

    async def call(self, asked: ProcessAction, watch: Watch | None = None) -> ProcessReport:
        """Carry out one action. Raises UnknownProcess, BadArgument, Denied, SandboxLost."""
        if asked.action == "list":
            return ProcessReport(asked.task.task, asked.action, tuple(await self._list(asked.task)))
        sandbox, record = await find_process(self._gateway.pool, asked.task, asked.process_id)
        with self._gateway.pool.holding(asked.task, sandbox):
            return await self._of_one(sandbox, record, asked, watch)

    async def _of_one(
        self, sandbox: Sandbox, record: Record, asked: ProcessAction, watch: Watch | None
    ) -> ProcessReport:
        """Carry out an action on one process. Raises BadArgument, Denied, SandboxLost."""
        if watch is not None:
            watch(record.process)
        # Output after this offset is new.
        before = (0, 0) if asked.is_about_all else await measure(record.process)
        if asked.cursor is not None:
            check_cursors((asked.cursor, asked.stderr_cursor), before)
        kills_rest = asked.action == "kill" and record.process.exit is not None and record.process.has_ended
        rest = await self._count_rest(sandbox, record) if kills_rest else 0
        written = await self._act(sandbox, record, asked)
        until = await self._until(record.process, asked)
        listening = [] if record.process.has_ended else await notes_on_listening(sandbox, asked.task)
        # Before the output is read: what has ended by then has written all of it.
        await sandbox.recount(record)
        reading, notes = await self._read(sandbox, record, asked, before)
        if record.process.has_ended:
            record.tell()
            notes += hints_on(sandbox, record, record.about.text, reading.texts, self._gateway.tools_with)
        notes += listening
        notes += notes_on_egress(sandbox.egress)
        notes += notes_on_call(asked.data, record, reading, written)
        if kills_rest:
            notes.append(note_on_rest(rest, record.process))
        if until is not None:
            notes.insert(0, note_on_match(until, record, asked.wait))
        notes[:0] = asked.notes
        facts, limit, ends = sandbox.facts(record), self._output_chars, reading.cursors
        result = result_of(record, asked.task.task, reading.texts, facts, limit=limit, notes=notes, cursors=ends)
        return ProcessReport(
            asked.task.task,
            asked.action,
            result=result,
            lost_bytes=reading.lost_bytes,
            more_bytes=reading.more_bytes,
            written_bytes=written,
            until=until,
        )

    async def _list(self, task: TaskKey) -> list[ProcessInfo]:
        sandboxes = await self._gateway.pool.sandboxes(task)
        found: list[tuple[float, ProcessInfo]] = []
        for sandbox in sandboxes:
            # Unknown where the supervisor does not answer.
            alive: Mapping[int, int | None] = dict.fromkeys(sandbox.channel.living)
            if sandbox.channel.living:
                with suppress(SandboxLost):
                    alive = await sandbox.alive()
            for record in sandbox.processes:
                info = self._info(sandbox, record, alive.get(record.process.number, 0))
                found.append((record.about.started, info))
        return [info for _, info in sorted(found, key=lambda pair: pair[0])]

    @staticmethod
    def _info(sandbox: Sandbox, record: Record, alive: int | None) -> ProcessInfo:
        about, process = record.about, record.process
        status, code = status_of(record, closed=sandbox.state is SandboxState.CLOSED)
        age = round(record.age, 1)
        size, tool, line = sum(process.written), about.tool, visible(about.text)
        return ProcessInfo(about.process_id, status.value, code, tool, line, age, size, about.is_terminal, alive)

    @staticmethod
    async def _count_rest(sandbox: Sandbox, record: Record) -> int | None:
        """Return how many processes a command that has ended left running; None if that is unknown."""
        if record.process.number not in sandbox.channel.living:
            return 0
        with suppress(SandboxLost):
            return (await sandbox.alive()).get(record.process.number, 0)
        return None

    async def _act(self, sandbox: Sandbox, record: Record, asked: ProcessAction) -> int | None:
        """Do what the action does to the process. Return how many bytes were written to it; None without a write."""
        process, action = record.process, asked.action
        if action == "kill":
            await sandbox.kill(record.process)
        elif action == "wait" and not asked.until:
            with anyio.move_on_after(asked.wait):
                await process.over()
        elif process.has_ended and action not in ("poll", "wait"):
            raise BadArgument(f"The process '{asked.process_id}' has ended; poll it for its output.")
        elif action == "write":
            return await self._write(sandbox, record, asked)
        elif action == "close_stdin":
            self._check_open(record)
            if not await process.input.close(INPUT_CLOSE_TIMEOUT, is_terminal=record.about.is_terminal):
                raise BadArgument(
                    f"The process '{asked.process_id}' has not read its input yet; close it later, or kill the process."
                )
        elif action == "signal":
            await process.signal(asked.signal)
        elif action == "resize":
            if not record.about.is_terminal:
                raise BadArgument(f"The process '{asked.process_id}' has no terminal: start it with 'pty'.")
            await process.resize(*asked.size)
        return None

    @staticmethod
    async def _until(process: Process, asked: ProcessAction) -> Searched | None:
        """Wait for a match of `until`; None if the call names none. It has no meaning for other actions than `wait`."""
        if asked.action != "wait" or not asked.until:
            return None
        return await wait_for_match(process, asked.until, (asked.cursor or 0, asked.stderr_cursor), asked.wait)

    async def _write(self, sandbox: Sandbox, record: Record, asked: ProcessAction) -> int:
        self._check_open(record)
        for command in asked.commands(record.about.tool, sandbox.profile):
            self._gateway.authorize(command)
        return await record.process.input.write(asked.data.encode(), WRITE_TIMEOUT)

    @staticmethod
    def _check_open(record: Record) -> None:
        if not record.process.input.is_open:
            raise BadArgument(
                f"The standard input of '{record.about.process_id}' is closed; to write to a command, start it with "
                "'background' or 'pty'."
            )

    async def _read(
        self, sandbox: Sandbox, record: Record, asked: ProcessAction, before: Totals
    ) -> tuple[Reading, list[str]]:
        """Return the requested output and notes on it. If the sandbox is lost, there is a note and no output."""
        process = record.process
        ansi, room = record.about.is_terminal and not asked.strip_ansi, output_room(self._output_chars)
        cursors = None if asked.cursor is None else (asked.cursor, asked.stderr_cursor)
        if cursors is None and not asked.is_about_all:
            cursors = before
        try:
            if asked.action in ("poll", "write") and asked.wait > 0:
                await self._news(process, (0, 0) if cursors is None else cursors, asked.wait)
            if cursors is None:
                return await read_overview(process, room, ansi=ansi), []
            return await read_page(process, cursors, room, ansi=ansi), []
        except SandboxLost:
            if not process.has_ended:
                raise
            none = (Excerpt("", 0), Excerpt("", 0))
            lost = max(0, sum(process.written) - sum(cursors or (0, 0)))
            return Reading(none, cursors or process.written, lost, 0), ["The output was lost with the sandbox."]

    @staticmethod
    async def _news(process: Process, seen: Totals, seconds: float) -> None:
        """Wait for output beyond the cursors and then for a pause in it, or for the end of the process."""
        with anyio.move_on_after(seconds):
            await process.news(seen)
            while not process.has_ended:
                now = process.written
                with anyio.move_on_after(OUTPUT_PAUSE) as quiet:
                    await process.news(now)
                if quiet.cancelled_caught:
                    return
