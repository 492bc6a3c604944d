"""Runs one command of a call in a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from taskcell.errors import BadArgument, ErrorCode, SandboxLost, SpawnFailed
from taskcell.model import Command, ProcessResult, Status
from taskcell.policy.policy import AuthorizedCommand
from taskcell.process.output import share
from taskcell.process.process import Process, Totals
from taskcell.process.record import About, Record
from taskcell.process.result import output_room, result_of
from taskcell.sandbox.egress_notes import notes_on_egress
from taskcell.sandbox.hints import Elsewhere, first_hint, hints_on, nowhere
from taskcell.sandbox.listening import notes_on_listening
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.shell import ShellRun
from taskcell.sandbox.spawn import GRACE
from taskcell.sandbox.sudo_notes import notes_on_sudo
from taskcell.sandbox.wait import KILL_SLACK, Waited, wait_for
from taskcell.supervisor import requests
from taskcell.supervisor.protocol import Reason
from taskcell.text import PATH_SHOWN, shown
from taskcell.units import format_seconds

#: Seconds before each look at what a command left running: helpers, such as those of git, end a moment after it.
PAUSES = (0.005, 0.015, 0.04)
#: Called with the process as soon as its start is requested.
Watch = Callable[[Process], None]


async def run_command(
    sandbox: Sandbox,
    authorized: AuthorizedCommand,
    process_id: str,
    watch: Watch | None = None,
    notes: Sequence[str] = (),
    *,
    elsewhere: Elsewhere = nowhere,
) -> ProcessResult:
    """Run a command until its end, its timeout, the caller's cancellation, or the end of the caller's `wait`.

    In the last case the result is `running`, and the caller must have `Sandbox.see_out` called. On cancellation the
    whole tree is killed and counted before the cancellation goes on; this is shielded and bounded. A sandbox that dies
    under the command is not an error but a result: `lost`, with the output so far.

    Raises BadArgument when too many commands run, SpawnFailed when the program could not be started, and EngineError
    when one of the profile's secrets cannot be read.

    Arguments:
        process_id: the command's name in its task.
        notes: sentences about the sandbox for the result.
        elsewhere: knows which other tools have what a command does not find.
    """
    command, terminal = authorized.command, sandbox.spawner.terminal
    sandbox.give_secrets()
    try:
        return await _run(sandbox, command, process_id, watch, _Beside(notes, elsewhere))
    except SpawnFailed as failure:
        if not failure.no_folder or command.workdir is not None or terminal.cwd is None:
            raise
    # The folder that the last command ended in is gone. Nothing was executed yet, so this is not a second run.
    gone, terminal.cwd = terminal.cwd, None
    note = f"The working directory {shown(gone, PATH_SHOWN)} is gone; the command ran in {sandbox.container.workspace}."
    return await _run(sandbox, command, process_id, watch, _Beside((*notes, note), elsewhere))


_NO_SHELL = (
    "It is the shell, by which every command here starts. Use an image that has it, or have the person who runs the "
    "server name another one by `shell` in the table of this environment."
)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What an answer says beside the command's result. Arguments as in `run_command`."""

    notes: Sequence[str]
    elsewhere: Elsewhere


async def _run(
    sandbox: Sandbox, command: Command, process_id: str, watch: Watch | None, beside: _Beside
) -> ProcessResult:
    if sandbox.processes.running >= sandbox.max_processes:
        raise BadArgument(
            f"{sandbox.processes.running} commands run in this sandbox, and no more may at once: wait for one, or end "
            "one with `process` and the action 'kill'.",
            code=ErrorCode.NO_CAPACITY,
        )
    record = sandbox.processes.add(About.of(command, process_id), sandbox.output_chars)
    call = _Call(sandbox, command, record, beside, sandbox.sudo_fault)
    process, earlier = record.process, None
    try:
        run = sandbox.spawner.shell_run(command)
        if run is not None:
            await sandbox.settle()
        if run is not None and record.about.is_foreground:
            earlier = await call.begin(run)

        def make(number: int) -> requests.Spawn:
            return sandbox.spawner.command(command, run, number, record.about.tag())

        await process.start(make, command.stdin, more=command.takes_input)
        if watch is not None:
            watch(process)
        return await call.result()
    except SpawnFailed as failure:
        sandbox.processes.remove(record)
        sandbox.spawner.terminal.withdraw(record, earlier)
        if failure.no_room:
            raise await _no_room(sandbox, failure) from None
        if failure.no_program and sandbox.profile.kind == "terminal":
            raise SpawnFailed(f"{failure} {_NO_SHELL}", no_program=True, code=failure.code) from None
        raise
    except anyio.get_cancelled_exc_class():
        await sandbox.kill(process, Reason.CANCEL)
        raise
    except SandboxLost:
        return call.ended()
    finally:
        process.let_go()


async def _no_room(sandbox: Sandbox, failure: SpawnFailed) -> SpawnFailed:
    """Return the failure with what makes room."""
    names = {record.process.number: record.about.process_id for record in sandbox.processes}
    reset = "use `sandbox` with the action 'reset'"
    with suppress(SandboxLost):
        counts = await sandbox.alive()
        trees = [(count, names[number]) for number, count in counts.items() if count and number in names]
        if trees:
            count, name = max(trees)
            return SpawnFailed(
                f"{failure} {count} processes of '{name}' run: kill them with `process`, process_id '{name}' and the "
                f"action 'kill', or {reset}."
            )
    return SpawnFailed(f"{failure} To make room, {reset}.")


@dataclass(frozen=True, slots=True)
class _Call:
    """One call's command, the record of its process, and what its answer says beside.

    `sudo_fault`: that of the sandbox before the command.
    """

    sandbox: Sandbox
    command: Command
    record: Record
    beside: _Beside
    sudo_fault: str

    async def begin(self, run: ShellRun) -> Record | None:
        """Have this end count instead of an earlier foreground command's that goes on; return the earlier command."""
        self.sandbox.keep_end(self.record, self.sandbox.spawner.beginning(self.command, run))
        earlier = self.sandbox.spawner.terminal.begin(self.record)
        if earlier is not None and earlier.is_handed_off and earlier.process.exit is None:
            await self.sandbox.channel.send(requests.no_report(earlier.process.number))
        return earlier

    async def result(self) -> ProcessResult:
        """Wait as long as the call does, and return its result. Raises SpawnFailed, SandboxLost."""
        process = self.record.process
        waited = await wait_for(process, self.command)
        if waited is Waited.SILENT:
            self.sandbox.give_up(process)
        elif waited is Waited.RUNNING:
            result = await self._handed_off()
            if result.status is Status.RUNNING:
                return result
            with anyio.move_on_after(GRACE + KILL_SLACK):  # it ended at this very moment: its kill is still counted
                await process.finished()
        await process.fetch_tails()
        await self.sandbox.settle()
        await self._count_what_stays()
        return self.ended()

    async def _count_what_stays(self) -> None:
        """Count again what the command left, so that no answer names what is about to end."""
        for pause in PAUSES:
            if not self.record.alive or not self.sandbox.usable:
                return
            await anyio.sleep(pause)
            await self.sandbox.recount(self.record)

    def ended(self) -> ProcessResult:
        """Return the result of a command that its call has waited for."""
        sandbox, process = self.sandbox, self.record.process
        sandbox.doom_for_survivors(process)
        self.record.tell()
        fault = sandbox.sudo_fault
        notes = notes_on_sudo(sandbox.profile, self.command.text, fault, is_new=fault != self.sudo_fault)
        return self._answer(process.totals(), notes)

    async def _handed_off(self) -> ProcessResult:
        """Return the result of a command that goes on: the output so far. Raises SandboxLost."""
        sandbox, record, process = self.sandbox, self.record, self.record.process
        listening = await notes_on_listening(sandbox, self.command.task)
        totals = await process.fetch_tails()
        limit = f", for at most {format_seconds(self.command.timeout)} s in all"
        notes = [
            f"It goes on{limit if record.about.has_timeout else ' as long as its sandbox'}; get more with `process`, "
            f"process_id '{record.about.process_id}' and the action 'wait' or 'poll'."
        ]
        if record.about.is_foreground and process.exit is None:
            counts = sandbox.spawner.terminal.hand_off(record)
            if not counts:
                await sandbox.channel.send(requests.no_report(process.number))
            elif record.may_move:
                notes.append(
                    "The next command starts where this one ends; one that is started before that starts in "
                    f"{shown(sandbox.spawner.next_folder, PATH_SHOWN)}."
                )
        notes += listening
        # What is begun belongs to the next answer.
        cursors = process.stdout.whole(totals[0]), process.stderr.whole(totals[1])
        return self._answer(cursors, notes, cursors)

    def _answer(self, totals: Totals, notes: Sequence[str], cursors: Totals | None = None) -> ProcessResult:
        """Return the result with the output up to `totals`."""
        record, process, limit, task = self.record, self.record.process, self.sandbox.output_chars, self.command.task
        texts = share(process.stdout, process.stderr, totals, output_room(limit), ansi=self.command.shows_ansi)
        facts, first = self.sandbox.facts(record), (*self.beside.notes, *first_hint(self.sandbox))
        notes = [*notes, *notes_on_egress(self.sandbox.egress)]
        notes += hints_on(self.sandbox, record, self.command.text, texts, self.beside.elsewhere)
        return result_of(record, task.task, texts, facts, limit=limit, first=first, notes=notes, cursors=cursors)
