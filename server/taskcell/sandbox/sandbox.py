"""One sandbox: a container, its channel, and the commands that run in it."""

from __future__ import annotations

import shlex
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
from taskcell.process.output import Text, share
from taskcell.process.process import ANSWER_TIMEOUT, Process, Totals
from taskcell.process.result import Surroundings, plain_texts, result_of
from taskcell.process.table import About, LastState, Listing, Record, Registry
from taskcell.resource_uris import output_address
from taskcell.sandbox.spawn import GRACE, SHELL_OWN, Launch, reported_env
from taskcell.sandbox.sudo import notes_on_sudo
from taskcell.supervisor import protocol, requests
from taskcell.supervisor.channel import Channel
from taskcell.units import format_seconds

__all__ = ["DEADLINE_SLACK", "GRACE", "KILL_SLACK", "LOGIN_TIMEOUT", "Sandbox", "SandboxState"]

#: Seconds beyond the grace that the supervisor may take to stop, kill and count.
KILL_SLACK = 4.0
#: Seconds after which a supervisor that has not said that a command ended, though its time is up, counts as dead.
DEADLINE_SLACK = GRACE + KILL_SLACK + 5.0
#: Seconds for the login shell to print its environment; a profile that takes longer is left out.
LOGIN_TIMEOUT = 5.0
#: Seconds that a sandbox for one call waits, after a process that was handed off, for somebody to ask for its output.
TELL_TIMEOUT = 600.0
_SHELL_VARIABLE = "TASKCELL_SHELL"
_SILENT = "its supervisor stopped answering"


class SandboxState(Enum):
    READY = "ready"
    CLOSED = "closed"


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
    #: Why sudo cannot work though the profile has it; empty where it works, or was not asked for.
    sudo_problem: str = ""
    launch: Launch = field(init=False)
    processes: Registry = field(init=False)
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self.launch = Launch(self.profile.profile, self.container, self.output_chars, self.spool)
        self.processes = Registry(self.channel)

    @property
    def usable(self) -> bool:
        return self.state is SandboxState.READY and self.doomed is None and self.channel.alive

    async def read_login_profile(self, shell: Sequence[str]) -> None:
        """Run the login shell once and keep its environment, so that no command pays for it."""
        # Its path too: a command may export a PATH without it, and must not lock itself out by that.
        learn = f"export {_SHELL_VARIABLE}=$(command -v {shlex.quote(shell[0])})"
        argv = (shell[0], "-lc", f"{learn}; exec {self.container.supervisor} report 0")
        flags = protocol.SpawnFlag.MERGE_STDERR | protocol.SpawnFlag.REPORT_STATE
        env, folder = self.launch.base_env(), self.container.workspace
        process = Process(self.channel, self.output_chars)
        try:
            await process.start(self.launch.request(argv, env, folder, flags, LOGIN_TIMEOUT))
            with anyio.fail_after(LOGIN_TIMEOUT + DEADLINE_SLACK):
                ended = await process.ended()
        except (SpawnFailed, TimeoutError):
            return
        finally:
            process.close()
        found = reported_env(ended.env)
        self.launch.shell = found.pop(_SHELL_VARIABLE, "") or shell[0]
        self.launch.login_env = {k: v for k, v in found.items() if k not in SHELL_OWN}

    async def adopt(self, shell: Sequence[str]) -> None:
        """Take up what an earlier server has left in the sandbox. Raises SandboxLost.

        That is its processes with their output, and where the last terminal command ended.
        """
        await self.processes.adopt()
        if self.profile.profile.kind != "terminal":
            return
        await self.read_login_profile(shell)
        state = await LastState(self.channel).fetch()
        about = About.from_tag(state.tag)
        if about is not None and about.given is not None:
            self.launch.take_up(state.cwd, state.env, about.given)

    # --- one command -------------------------------------------------------------------------------------------

    async def run(
        self, authorized: AuthorizedCommand, process_id: str, watch: Callable[[Process], None] | None = None
    ) -> ProcessResult:
        """Run a command to its end, its timeout, the caller's cancellation, or until the caller waits no longer.

        In the last case the result is `running`: the caller must see to it that `see_out` is called then.

        Cancelled: the command's whole tree is killed and counted first (shielded, bounded), then the cancellation goes
        on. Raises SpawnFailed when the program could not be started. A sandbox that dies under the command is not an
        error but a result: `lost`, with the output so far.

        Arguments:
            watch: called with the process once its start was asked for.
        """
        command = authorized.command
        if self.processes.running >= self.max_processes:
            raise BadArgument(
                f"{self.processes.running} commands run in this sandbox, and no more may at once: wait for one, or end "
                "one with `process` and the action 'kill'."
            )
        record = self.processes.add(About.of(command, process_id), self.output_chars)
        process = record.process
        try:
            request = self.launch.command(command, record.about.tag())
            await process.start(request, command.stdin, more=command.takes_input)
            if watch is not None:
                watch(process)
            if not await self._wait(process, command):
                result = await self._handed_off(record, command)
                if result.status is Status.RUNNING:
                    return result
                with anyio.move_on_after(GRACE + KILL_SLACK):  # it ended at this very moment: it is counted now
                    await process.finished()
            await process.fetch_tails()
            return self._ended(record, command)
        except SpawnFailed as failure:
            self.processes.remove(record)
            if not (failure.no_folder and command.workdir is None and self.launch.terminal.cwd is not None):
                raise
        except anyio.get_cancelled_exc_class():
            await self._kill(process)
            raise
        except SandboxLost:
            return self._ended(record, command)
        finally:
            process.let_go()
        return await self._run_in_the_workspace(authorized, process_id, watch)

    async def _wait(self, process: Process, command: Command) -> bool:
        """Wait for the end as long as the caller does; False where it goes on. Raises SpawnFailed, SandboxLost."""
        limit = command.timeout + DEADLINE_SLACK
        patience = limit if command.wait is None or command.wait >= command.timeout else command.wait
        with anyio.move_on_after(0 if command.background else patience) as bound:
            await process.finished()
        if not bound.cancelled_caught or process.has_ended:
            return True
        if patience < limit or command.background:
            # Whether it could be started at all is told by now, or at once.
            with anyio.move_on_after(ANSWER_TIMEOUT) as bound:
                await process.running()
            if not bound.cancelled_caught:
                return process.has_ended
        self.doomed = _SILENT
        process.on_lost(_SILENT)
        return True

    async def _run_in_the_workspace(
        self, authorized: AuthorizedCommand, process_id: str, watch: Callable[[Process], None] | None
    ) -> ProcessResult:
        """The folder that the last command ended in is gone: nothing was executed yet, so this is no second run."""
        gone, self.launch.terminal.cwd = self.launch.terminal.cwd, None
        result = await self.run(authorized, process_id, watch)
        note = f"The working directory {gone} is gone; the command ran in {self.container.workspace}."
        return replace(result, notes=(note, *result.notes))

    @property
    def surroundings(self) -> Surroundings:
        """What a result of a process says of its sandbox."""
        return Surroundings(self.state is SandboxState.CLOSED, self.doomed, self.launch.next_folder)

    def _ended(self, record: Record, command: Command) -> ProcessResult:
        """The result of a command that a call has waited for; where it ended is kept for the next one."""
        process = record.process
        notes = [] if process.exit is None else self.launch.keep_state(process.exit, command)
        notes += notes_on_sudo(self.profile.profile, command.text, self.sudo_problem)
        if process.killed is not None and process.killed.survivors:
            self.doomed = f"{process.killed.survivors} of its processes survived the kill"
        record.tell()
        around = self.surroundings
        if self.launch.terminal.cwd is None:
            around = replace(around, workdir=self.launch.folder(command))
        texts = self._texts(record, command, process.totals())
        return result_of(record, command.task.task, texts, around, notes=notes)

    async def _handed_off(self, record: Record, command: Command) -> ProcessResult:
        """The result of a command that goes on: the output so far. Raises SandboxLost."""
        totals = await record.process.fetch_tails()
        # Where it ends is not where the next command starts, for the next server neither.
        await self.channel.send(requests.no_report(record.process.number))
        how = (
            f"It goes on, for {format_seconds(command.timeout)} s in all at most; ask for more with `process`, "
            f"process_id '{record.about.process_id}' and the action 'wait' or 'poll'."
        )
        texts = self._texts(record, command, totals)
        return result_of(record, command.task.task, texts, self.surroundings, notes=[how], cursors=totals)

    def _texts(self, record: Record, command: Command, totals: Totals) -> tuple[Text, Text]:
        process, where = record.process, output_address(command.task.task, record.about.process_id)
        return plain_texts(share(process.stdout, process.stderr, *totals, where), plain=command.strip_ansi)

    async def see_out(self, record: Record) -> None:
        """Stay with a process that goes on after its call's answer, until its end."""
        process = record.process
        left = max(0.0, record.about.started + record.about.timeout - time.time())
        with anyio.move_on_after(left + DEADLINE_SLACK) as bound:
            with suppress(SandboxLost, SpawnFailed):
                await process.finished()
        if bound.cancelled_caught:
            self.doomed = _SILENT
            process.on_lost(_SILENT)
        process.let_go()
        if process.killed is not None and process.killed.survivors:
            self.doomed = f"{process.killed.survivors} of its processes survived the kill"
        if self.profile.profile.reuse is Reuse.CALL and self.usable:
            # Its output is gone with it.
            with anyio.move_on_after(TELL_TIMEOUT):
                await record.told()

    async def kill(self, record: Record) -> None:
        """Kill a process with all that it started; returns when it was counted. Shielded and bounded."""
        await self._kill(record.process)

    async def _kill(self, process: Process) -> None:
        with anyio.move_on_after(GRACE + KILL_SLACK, shield=True) as bound:
            try:
                survivors = await process.kill(GRACE)
                if survivors:
                    self.doomed = f"{survivors} of its processes survived the kill"
            except SandboxLost:
                return
        if bound.cancelled_caught:
            self.doomed = "its supervisor did not confirm the kill"

    # --- its end -----------------------------------------------------------------------------------------------

    async def close(self, grace: float) -> None:
        """Tell the supervisor to kill everything and to exit. The caller removes the container, whatever came of it."""
        if self.state is SandboxState.CLOSED:
            return
        self.state = SandboxState.CLOSED
        try:
            await self.channel.send(requests.shutdown(round(grace * 1000)))
        except SandboxLost:
            return

    async def wait_closed(self, seconds: float) -> bool:
        """Wait until the supervisor has killed everything and is gone, no longer than so many seconds."""
        gone = anyio.Event()
        self.channel.when_lost(gone.set)
        with anyio.move_on_after(seconds):
            await gone.wait()
        return gone.is_set()

    async def living(self) -> int:
        """How many commands have a living process. Raises SandboxLost."""
        async with self._listing:
            entries = await Listing(self.channel).fetch()
        return sum(entry.state is not protocol.ProcessState.GONE for entry in entries)
