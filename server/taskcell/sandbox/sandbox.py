"""One sandbox: a container, its channel, and the commands that run in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum

import anyio
import anyio.abc

from taskcell.engine.base import Container
from taskcell.errors import BadArgument, SandboxLost, SpawnFailed
from taskcell.model import Command, ProcessResult, Reuse, Status
from taskcell.policy.policy import AuthorizedCommand, AuthorizedProfile
from taskcell.process.output import share
from taskcell.process.process import Process, Totals
from taskcell.process.record import About, Record
from taskcell.process.result import SandboxFacts, output_room, result_of
from taskcell.process.table import ProcessTable
from taskcell.resource_uris import output_address
from taskcell.sandbox.last_report import last_report
from taskcell.sandbox.login_profile import read_login_profile
from taskcell.sandbox.shell import ShellRun
from taskcell.sandbox.spawn import GRACE, Spawner
from taskcell.sandbox.sudo_notes import notes_on_sudo
from taskcell.sandbox.wait import DEADLINE_SLACK, KILL_SLACK, Waited, wait_for
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel
from taskcell.text import one_line
from taskcell.units import format_seconds

#: Seconds that a sandbox for one call stays after the end of a handed-off process, so that its output can be fetched.
TELL_TIMEOUT = 600.0
_SILENT = "its supervisor stopped answering"


class SandboxState(Enum):
    READY = "ready"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class _Call:
    """One call's command, how a shell is given it, the record of its process, and notes for its answer."""

    command: Command
    run: ShellRun | None
    record: Record
    notes: Sequence[str]


@dataclass(slots=True)
class Sandbox:
    """A started container with an open channel.

    Arguments:
        output_chars: characters of output in one result.
        spool: bytes that the supervisor keeps of each stream of a process.
        max_processes: commands that may run at once.
    """

    profile: AuthorizedProfile
    container: Container
    channel: Channel
    output_chars: int
    spool: int
    max_processes: int = 64
    state: SandboxState = SandboxState.READY
    #: Why the pool must not use this sandbox again; None while it may.
    doomed: str | None = None
    #: Why sudo cannot work though the profile has it; empty if it works or the profile has none.
    sudo_problem: str = ""
    spawner: Spawner = field(init=False)
    processes: ProcessTable = field(init=False)

    def __post_init__(self) -> None:
        self.spawner = Spawner(self.profile.profile, self.container, self.output_chars, self.spool)
        self.processes = ProcessTable(self.channel)

    @property
    def usable(self) -> bool:
        return self.state is SandboxState.READY and self.doomed is None and self.channel.alive

    def doom(self, reason: str) -> None:
        """Have the pool replace this sandbox when its calls have ended. `reason` completes "it died: …"."""
        self.doomed = reason

    async def read_login_profile(self, shell: Sequence[str]) -> None:
        """Have commands start with what the login profile exports. Raises SandboxLost."""
        await read_login_profile(self.channel, self.spawner, shell)

    async def adopt(self, shell: Sequence[str]) -> None:
        """Take up what an earlier server left: processes, their output, and where the last terminal command ended.

        Raises SandboxLost.
        """
        await self.processes.adopt()
        if self.profile.profile.kind != "terminal":
            return
        await self.read_login_profile(shell)
        tag, report = await last_report(self.channel)
        about = About.from_tag(tag)
        if about is not None and about.given is not None:
            self.spawner.take_up(report, about.given)

    # --- one command -------------------------------------------------------------------------------------------

    async def run(
        self,
        authorized: AuthorizedCommand,
        process_id: str,
        watch: Callable[[Process], None] | None = None,
        notes: Sequence[str] = (),
    ) -> ProcessResult:
        """Run a command until its end, its timeout, the caller's cancellation, or the end of the caller's `wait`.

        In the last case the result is `running`, and the caller must have `see_out` called. On cancellation the whole
        tree is killed and counted before the cancellation goes on; this is shielded and bounded. A sandbox that dies
        under the command is not an error but a result: `lost`, with the output so far.

        Raises BadArgument when too many commands run, and SpawnFailed when the program could not be started.

        Arguments:
            watch: called with the process as soon as its start is requested.
            notes: sentences about the sandbox for the result.
        """
        command, terminal = authorized.command, self.spawner.terminal
        try:
            return await self._run(command, process_id, watch, notes)
        except SpawnFailed as failure:
            if not failure.no_folder or command.workdir is not None or terminal.cwd is None:
                raise
        # The folder that the last command ended in is gone. Nothing was executed yet, so this is not a second run.
        gone, terminal.cwd = terminal.cwd, None
        note = f"The working directory {one_line(gone)} is gone; the command ran in {self.container.workspace}."
        return await self._run(command, process_id, watch, (*notes, note))

    async def _run(
        self, command: Command, process_id: str, watch: Callable[[Process], None] | None, notes: Sequence[str]
    ) -> ProcessResult:
        if self.processes.running >= self.max_processes:
            raise BadArgument(
                f"{self.processes.running} commands run in this sandbox, and no more may at once: wait for one, or end "
                "one with `process` and the action 'kill'."
            )
        record = self.processes.add(About.of(command, process_id), self.output_chars)
        call, process = _Call(command, self.spawner.shell_run(command), record, notes), record.process

        def make(number: int) -> requests.Spawn:
            return self.spawner.command(command, call.run, number, record.about.tag())

        try:
            await process.start(make, command.stdin, more=command.takes_input)
            if watch is not None:
                watch(process)
            return await self._result(call)
        except SpawnFailed:
            self.processes.remove(record)
            raise
        except anyio.get_cancelled_exc_class():
            await self.kill(process)
            raise
        except SandboxLost:
            return self._ended(call)
        finally:
            process.let_go()

    async def _result(self, call: _Call) -> ProcessResult:
        """Wait as long as the call does, and return its result. Raises SpawnFailed, SandboxLost."""
        process = call.record.process
        waited = await wait_for(process, call.command)
        if waited is Waited.SILENT:
            self._give_up(process)
        elif waited is Waited.RUNNING:
            result = await self._handed_off(call)
            if result.status is Status.RUNNING:
                return result
            with anyio.move_on_after(GRACE + KILL_SLACK):  # it ended at this very moment: its kill is still counted
                await process.finished()
        await process.fetch_tails()
        return self._ended(call, await self._report(call))

    async def _report(self, call: _Call) -> bytes:
        """Return what its shell reported of where the command ended. Raises SandboxLost."""
        ended = call.record.process.exit
        if ended is None or len(ended.report) == ended.report_size:
            return b"" if ended is None else ended.report
        tag, report = await last_report(self.channel)
        return report if tag == call.record.about.tag() else b""

    def _give_up(self, process: Process) -> None:
        self.doom(_SILENT)
        process.on_lost(_SILENT)

    @property
    def facts(self) -> SandboxFacts:
        """What the results of its processes need to know about it."""
        return SandboxFacts(self.state is SandboxState.CLOSED, self.doomed, self.spawner.next_folder)

    def _ended(self, call: _Call, report: bytes = b"") -> ProcessResult:
        """Return the result of a command that its call has waited for, and keep where it ended for the next one."""
        process, command = call.record.process, call.command
        notes = []
        if process.exit is not None and call.run is not None:
            notes += self.spawner.keep_state(process.exit, command, call.run, report)
        notes += notes_on_sudo(self.profile.profile, command.text, self.sudo_problem)
        self._doom_for_survivors(process)
        call.record.tell()
        facts = self.facts
        if self.spawner.terminal.cwd is None:
            facts = replace(facts, workdir=self.spawner.folder(command))
        return self._answer(call, process.totals(), facts, notes)

    async def _handed_off(self, call: _Call) -> ProcessResult:
        """Return the result of a command that goes on: the output so far. Raises SandboxLost."""
        process = call.record.process
        totals = await process.fetch_tails()
        # Where it ends is not where the next command starts, for a later server neither.
        await self.channel.send(requests.no_report(process.number))
        how = (
            f"It goes on, for at most {format_seconds(call.command.timeout)} s in all; get more with `process`, "
            f"process_id '{call.record.about.process_id}' and the action 'wait' or 'poll'."
        )
        # What is begun belongs to the next answer.
        cursors = process.stdout.whole(totals[0]), process.stderr.whole(totals[1])
        return self._answer(call, cursors, self.facts, [how], cursors)

    def _answer(
        self, call: _Call, totals: Totals, facts: SandboxFacts, notes: Sequence[str], cursors: Totals | None = None
    ) -> ProcessResult:
        """Return the result with the output up to `totals`."""
        command, process, limit = call.command, call.record.process, self.output_chars
        where, ansi = output_address(command.task.task, call.record.about.process_id), command.shows_ansi
        texts = share(process.stdout, process.stderr, totals, output_room(limit), where, ansi=ansi)
        return result_of(
            call.record, command.task.task, texts, facts, limit=limit, first=call.notes, notes=notes, cursors=cursors
        )

    async def see_out(self, record: Record) -> None:
        """Stay with a process that goes on after its call's answer until it ends."""
        process = record.process
        left = max(0.0, record.about.started + record.about.timeout - time.time())
        with anyio.move_on_after(left + DEADLINE_SLACK) as bound:
            with suppress(SandboxLost, SpawnFailed):
                await process.finished()
        if bound.cancelled_caught:
            self._give_up(process)
        process.let_go()
        self._doom_for_survivors(process)
        if self.profile.profile.reuse is Reuse.CALL and self.usable:
            # The pool removes the sandbox after this, and the output with it.
            with anyio.move_on_after(TELL_TIMEOUT):
                await record.told()

    async def kill(self, process: Process) -> None:
        """Kill a process and everything that it started, and wait for the count. Shielded and bounded."""
        with anyio.move_on_after(GRACE + KILL_SLACK, shield=True) as bound:
            with suppress(SandboxLost):
                await process.kill(GRACE)
            self._doom_for_survivors(process)
        if bound.cancelled_caught:
            self.doom("its supervisor did not confirm the kill")

    def _doom_for_survivors(self, process: Process) -> None:
        killed = process.killed
        if killed is not None and killed.survivors is None:
            self.doom("its supervisor could not see whether a kill left processes alive")
        elif killed is not None and killed.survivors:
            self.doom(f"{killed.survivors} of its processes survived the kill")

    # --- its end -----------------------------------------------------------------------------------------------

    async def close(self, grace: float) -> None:
        """Tell the supervisor to kill everything and to exit. The caller removes the container in any case."""
        if self.state is SandboxState.CLOSED:
            return
        self.state = SandboxState.CLOSED
        try:
            await self.channel.send(requests.shutdown(round(grace * 1000)))
        except SandboxLost:
            return

    async def wait_closed(self, seconds: float) -> bool:
        """Wait at most so many seconds until the supervisor has killed everything and is gone; return whether it is."""
        gone = anyio.Event()
        self.channel.when_lost(gone.set)
        with anyio.move_on_after(seconds):
            await gone.wait()
        return gone.is_set()

    async def living(self) -> int:
        """Return how many commands have a living process. Raises SandboxLost."""
        listing = await self.channel.ask(requests.list_processes(), events.Listing, ANSWER_TIMEOUT)
        return sum(entry.state is not protocol.ProcessState.GONE for part in listing for entry in part.entries)
