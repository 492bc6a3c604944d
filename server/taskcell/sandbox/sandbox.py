"""One sandbox: a container, its channel, and the commands that run in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import anyio
import anyio.abc
from anyio.abc import ByteStream

from taskcell.egress.egress import SandboxEgress
from taskcell.engine.base import Container
from taskcell.errors import EngineError, SandboxLost, SpawnFailed
from taskcell.model import Reuse
from taskcell.policy.policy import AuthorizedProfile
from taskcell.process.held import HeldProcess
from taskcell.process.masks import Masks
from taskcell.process.process import Process
from taskcell.process.record import About, Record
from taskcell.process.result import SandboxFacts
from taskcell.process.table import ProcessTable
from taskcell.sandbox.as_asked import is_on_this_kernel
from taskcell.sandbox.last_report import last_report
from taskcell.sandbox.login_profile import read_login_profile
from taskcell.sandbox.shell import parse_report
from taskcell.sandbox.spawn import GRACE, Spawner
from taskcell.sandbox.sudo_notes import REFUSED
from taskcell.sandbox.terminal_state import Beginning
from taskcell.sandbox.wait import DEADLINE_SLACK, KILL_SLACK, within
from taskcell.secret import SecretUnreadable
from taskcell.supervisor import events, requests
from taskcell.supervisor.channel import ANSWER_TIMEOUT, Channel
from taskcell.supervisor.protocol import Reason

#: Seconds that a sandbox for one call stays after the end of a handed-off process, so that its output can be fetched.
TELL_TIMEOUT = 600.0
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
    #: Why sudo could not be set up though the profile has it; empty if it could or the profile has none.
    sudo_problem: str = ""
    #: Its proxy; None where the profile names no host, or the supervisor cannot listen.
    egress: SandboxEgress | None = None
    #: Opens the stream of a `supervisor transfer` beside the channel; None where its engine cannot.
    apart: Callable[[Sequence[str]], AbstractAsyncContextManager[ByteStream]] | None = None
    #: Ports that an answer has said something listens on, while it does.
    listening: set[int] = field(default_factory=set)
    spawner: Spawner = field(init=False)
    processes: ProcessTable = field(init=False)
    #: The secrets that its commands were given.
    masks: Masks = field(default_factory=Masks)
    _settling: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        self.spawner = Spawner(self.profile, self.container, self.output_chars, self.spool)
        self.processes = ProcessTable(self.channel, self.masks)

    @property
    def usable(self) -> bool:
        return self.state is SandboxState.READY and self.doomed is None and self.channel.alive

    @property
    def sudo_fault(self) -> str:
        """Why sudo cannot work though the profile has it, as far as that is known; empty if it works."""
        return self.sudo_problem or (REFUSED if self.channel.sudo_refused else "")

    def take_egress(self, egress: SandboxEgress | None) -> None:
        """Have commands find the proxy."""
        self.egress = egress
        self.spawner.proxies = {} if egress is None else egress.environment

    def doom(self, reason: str) -> None:
        """Have the pool replace this sandbox when its calls have ended. `reason` completes "it died: …"."""
        self.doomed = reason

    def give_secrets(self) -> None:
        """Have the next commands get the profile's secrets as they are now. Raises EngineError: one cannot be read."""
        found = {}
        for secret in self.profile.secrets:
            try:
                found[secret.name] = secret.read()
            except SecretUnreadable as error:
                raise EngineError(
                    f"The secret {secret.name} {error}; the person who runs the server must put it there, and then the "
                    "command can be called again."
                ) from None
            self.masks.add(found[secret.name])
        self.spawner.secrets = found

    async def read_login_profile(self, shell: Sequence[str]) -> None:
        """Have commands start with what the login profile exports. Raises SandboxLost."""
        await read_login_profile(self.channel, self.spawner, shell)

    async def adopt(self, shell: Sequence[str]) -> None:
        """Take up what an earlier server left: processes, their output, and where the last terminal command ended.

        Raises SandboxLost.
        """
        with suppress(EngineError):  # a command that needs it says so
            self.give_secrets()
        await self.processes.adopt()
        if self.profile.kind != "terminal":
            return
        await self.read_login_profile(shell)
        self.spawner.programs = ()  # the earlier server's answers had them
        for record in self.processes:
            if record.about.is_foreground:
                record.is_handed_off = True
                self.spawner.terminal.begin(record)
                if record.about.given is not None:
                    self.keep_end(record, Beginning(self.spawner.given_before(record.about.given)))
        await self._take_up_last_report()

    async def _take_up_last_report(self) -> None:
        """Start the next command where the last one ended, unless one that goes on has ended meanwhile."""
        terminal = self.spawner.terminal
        tag, report = await last_report(self.channel)
        about, found = About.from_tag(tag), parse_report(report)
        if about is not None and about.given is not None and found is not None and terminal.env is None:
            given = self.spawner.given_before(about.given)
            terminal.keep(found.folder, found.env, given, self.spawner.start_env())

    # --- its processes -----------------------------------------------------------------------------------------

    def keep_end(self, record: Record, beginning: Beginning) -> None:
        """Have the next command start where this one will end, if its end counts."""
        spawner = self.spawner
        record.may_move = beginning.folder != spawner.next_folder
        record.on_end = lambda: spawner.terminal.end(record, beginning, spawner.start_env())

    async def settle(self) -> None:
        """Fetch the report of a terminal command's end that was too long for its EXIT. Raises SandboxLost."""
        terminal = self.spawner.terminal
        async with self._settling:
            if terminal.owed is not None:
                record, beginning = terminal.owed
                tag, report = await last_report(self.channel)
                terminal.owed = None
                if tag == record.about.tag():
                    terminal.take(record, beginning, self.spawner.start_env(), report)

    def give_up(self, process: Process) -> None:
        """Treat a process as lost because its supervisor is silent."""
        self.doom(_SILENT)
        process.on_lost(_SILENT)

    async def recount(self, record: Record) -> None:
        """Bring up to date what a result says about a process that has ended."""
        number, has_ended = record.process.number, record.process.exit is not None
        try:
            await self.settle()
            if has_ended and number in self.channel.living:
                record.alive = (await self.alive()).get(number, 0)
        except SandboxLost:
            record.alive = None if has_ended and number in self.channel.living else record.alive

    def facts(self, record: Record) -> SandboxFacts:
        """Return what a result of this process needs to know about the sandbox."""
        alive = record.alive if record.process.number in self.channel.living else 0
        closed, limit = self.state is SandboxState.CLOSED, self.profile.pids
        own_kernel = "" if is_on_this_kernel(self.profile, self.container) else self._runtime
        return SandboxFacts(closed, self.doomed, self.spawner.next_folder, alive, limit, own_kernel)

    @property
    def _runtime(self) -> str:
        return self.profile.runtime or self.container.runtime

    async def see_out(self, record: Record) -> None:
        """Stay with a process that goes on after its call's answer until it ends."""
        process = record.process
        left = max(0.0, record.about.timeout - record.age)
        has_ended = True
        with suppress(SandboxLost, SpawnFailed):
            has_ended = await within(process, partial(self._end_of, record), left + DEADLINE_SLACK)
        if not has_ended:
            self.give_up(process)
        process.let_go()
        self.doom_for_survivors(process)
        if self.profile.reuse is Reuse.CALL and self.usable:
            # The pool removes the sandbox after this, and the output with it.
            with anyio.move_on_after(TELL_TIMEOUT):
                await record.told()

    async def _end_of(self, record: Record) -> None:
        """Wait for a process's end; kill it when its reader has gone for too long. Raises SpawnFailed, SandboxLost."""
        if isinstance(record.process, HeldProcess) and record.about.linger:
            await record.process.unread(record.about.linger)
            if not record.process.has_ended:
                await self.kill(record.process, Reason.CANCEL)
        await record.process.finished()

    async def kill(self, process: Process, reason: Reason = Reason.KILL) -> None:
        """Kill a process and everything that it started, and wait for the count. Shielded and bounded.

        Arguments:
            reason: KILL or CANCEL, which is what is told of the process.
        """
        with anyio.move_on_after(GRACE + KILL_SLACK, shield=True) as bound:
            with suppress(SandboxLost):
                await process.kill(GRACE, reason)
            self.doom_for_survivors(process)
        if bound.cancelled_caught:
            self.doom("its supervisor did not confirm the kill")

    def doom_for_survivors(self, process: Process) -> None:
        """Doom the sandbox if a kill of this process left survivors, or may have."""
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
            await self.channel.shut_down(round(grace * 1000))
        except SandboxLost:
            return

    async def wait_closed(self, seconds: float) -> bool:
        """Wait at most so many seconds until the supervisor has killed everything and is gone; return whether it is."""
        gone = anyio.Event()
        self.channel.when_lost(gone.set)
        with anyio.move_on_after(seconds):
            await gone.wait()
        return gone.is_set()

    async def alive(self) -> dict[int, int | None]:
        """Count the living processes of each tree; the keys are the numbers of their main processes.

        A count is None if it is unknown. Raises SandboxLost.
        """
        listing = await self.channel.ask(requests.list_processes(), events.Listing, ANSWER_TIMEOUT)
        return {entry.process: entry.alive for part in listing for entry in part.entries if entry.alive != 0}
