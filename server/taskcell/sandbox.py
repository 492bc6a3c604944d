"""One sandbox: a container, its channel, and the commands that run in it."""

from __future__ import annotations

import math
import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import anyio
import anyio.abc

from taskcell.engine.base import Container
from taskcell.errors import SandboxLost, SpawnFailed
from taskcell.model import Command, ProcessResult, Status
from taskcell.outcome import notes_on, signal_name, status_of
from taskcell.output import Capture, Text, share
from taskcell.policy import AuthorizedCommand, AuthorizedProfile
from taskcell.process import Listing, Process
from taskcell.supervisor import protocol
from taskcell.supervisor.channel import Channel

#: Seconds between TERM and KILL, from the contract's section 7.
GRACE = 2.0
#: Seconds beyond the grace that the supervisor may take to stop, kill and count.
KILL_SLACK = 4.0
#: Seconds after which a supervisor that has not said that a command ended, though its time is up, counts as dead.
DEADLINE_SLACK = GRACE + KILL_SLACK + 5.0
#: Seconds for the login shell to print its environment; a profile that takes longer is left out.
LOGIN_TIMEOUT = 5.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL_VARIABLE = "TASKCELL_SHELL"
#: A shell's own variables, which are not the user's exports.
_SHELL_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TASKCELL_STATE_FD"})


_UNREPORTED = (
    "Where the command ended is not known: it has a syntax error, replaced its shell by exec, has an EXIT trap of its "
    "own, or exports more than 64 KiB."
)


class SandboxState(Enum):
    READY = "ready"
    CLOSED = "closed"


@dataclass(slots=True)
class TerminalState:
    """Where the task's next terminal command starts: what the last one ended with."""

    cwd: str | None = None
    env: dict[str, str] | None = None


@dataclass(slots=True)
class Sandbox:
    """A started container with an open channel.

    Arguments:
        output_chars: characters of output in one result.
        spool: bytes that the supervisor keeps of each stream of a process.
    """

    profile: AuthorizedProfile
    container: Container
    channel: Channel
    output_chars: int
    spool: int
    state: SandboxState = SandboxState.READY
    terminal: TerminalState = field(default_factory=TerminalState)
    login_env: dict[str, str] = field(default_factory=dict)
    shell: str = ""
    #: Why the pool must not use this sandbox again; None while it may.
    doomed: str | None = None
    _listing: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def usable(self) -> bool:
        return self.state is SandboxState.READY and self.doomed is None and self.channel.alive

    async def read_login_profile(self, shell: Sequence[str]) -> None:
        """Run the login shell once and keep its environment, so that no command pays for it."""
        # Its path too: a command may export a PATH without it, and must not lock itself out by that.
        learn = f"export {_SHELL_VARIABLE}=$(command -v {shlex.quote(shell[0])})"
        argv = (shell[0], "-lc", f"{learn}; exec {self.container.supervisor} report 0")
        flags = protocol.SpawnFlag.MERGE_STDERR | protocol.SpawnFlag.REPORT_STATE
        request = self._request(argv, self._base_env(), self.container.workspace, flags, LOGIN_TIMEOUT)
        process = Process(self.channel, self.output_chars)
        try:
            await process.start(request)
            with anyio.fail_after(LOGIN_TIMEOUT + DEADLINE_SLACK):
                ended = await process.ended()
        except (SpawnFailed, TimeoutError):
            return
        finally:
            process.close()
        env = _reported_env(ended.env)
        self.shell = env.pop(_SHELL_VARIABLE, "") or shell[0]
        self.login_env = {k: v for k, v in env.items() if k not in _SHELL_OWN}

    async def adopt(self) -> None:
        """Go on with a supervisor that served another server before: its processes keep their numbers.

        Raises SandboxLost.
        """
        entries = await Listing(self.channel).fetch()
        gone = protocol.ProcessState.GONE
        self.channel.go_on_after({entry.process: entry.state is not gone for entry in entries})

    async def run(self, authorized: AuthorizedCommand, process_id: str) -> ProcessResult:
        """Run a command to its end, its timeout, or the caller's cancellation.

        Cancelled: the command's whole tree is killed and counted first (shielded, bounded), then the cancellation goes
        on. Raises SpawnFailed when the program could not be started. A sandbox that dies under the command is not an
        error but a result: `lost`, with the output so far.
        """
        command = authorized.command
        process = Process(self.channel, self.output_chars)
        try:
            await process.start(self._spawn_request(command), command.stdin)
            with anyio.move_on_after(command.timeout + DEADLINE_SLACK) as backstop:
                await process.finished()
            if backstop.cancelled_caught:
                self.doomed = "its supervisor stopped answering"
            else:
                await process.fetch_tails()
            return self._result(command, process, process_id)
        except SpawnFailed as failure:
            if not (failure.no_folder and command.workdir is None and self.terminal.cwd is not None):
                raise
        except anyio.get_cancelled_exc_class():
            await self._kill(process)
            raise
        except SandboxLost:
            return self._result(command, process, process_id)
        finally:
            process.close()
        return await self._run_in_the_workspace(authorized, process_id)

    async def _run_in_the_workspace(self, authorized: AuthorizedCommand, process_id: str) -> ProcessResult:
        """The folder that the last command ended in is gone: nothing was executed yet, so this is no second run."""
        gone, self.terminal.cwd = self.terminal.cwd, None
        result = await self.run(authorized, process_id)
        note = f"The working directory {gone} is gone; the command ran in {self.container.workspace}."
        return replace(result, notes=(note, *result.notes))

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

    async def close(self, grace: float) -> None:
        """Tell the supervisor to kill everything and to exit. The caller removes the container, whatever came of it."""
        if self.state is SandboxState.CLOSED:
            return
        self.state = SandboxState.CLOSED
        try:
            await self.channel.send(protocol.shutdown(round(grace * 1000)))
        except SandboxLost:
            return

    async def wait_closed(self, seconds: float) -> bool:
        """Wait until the supervisor has killed everything and is gone, no longer than so many seconds."""
        gone = anyio.Event()
        self.channel.when_lost(gone.set)
        with anyio.move_on_after(seconds):
            await gone.wait()
        return gone.is_set()

    async def processes(self) -> int:
        """How many commands have a living process. Raises SandboxLost."""
        async with self._listing:
            entries = await Listing(self.channel).fetch()
        return sum(entry.state is not protocol.ProcessState.GONE for entry in entries)

    # --- what a command starts with --------------------------------------------------------------------------

    def _spawn_request(self, command: Command) -> protocol.Spawn:
        profile = self.profile.profile
        flags = protocol.SpawnFlag.STDIN if command.stdin else protocol.SpawnFlag.NONE
        argv: tuple[str, ...]
        if profile.kind == "terminal":
            flags |= protocol.SpawnFlag.MERGE_STDERR | protocol.SpawnFlag.REPORT_STATE
            shell = (self.shell or command.argv[0], *command.argv[1:-1])
            argv = (*shell, self._with_report(command.argv[-1]))
        else:
            argv = (*self._entrypoint(), *command.argv)
        env = self._start_env() | dict(command.env)
        return self._request(argv, env, self._cwd(command), flags, command.timeout)

    def _request(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, flags: protocol.SpawnFlag, timeout: float
    ) -> protocol.Spawn:
        return protocol.Spawn(
            argv=[_bytes(word) for word in argv],
            env={_bytes(key): _bytes(value) for key, value in env.items()},
            cwd=_bytes(cwd),
            user=b"" if self.container.user is None else _bytes(self.container.user),
            flags=flags,
            timeout_ms=max(1, math.ceil(timeout * 1000)),
            grace_ms=round(GRACE * 1000),
            spool=self.spool,
            credit=Capture(self.output_chars).head_bytes,
        )

    def _with_report(self, line: str) -> str:
        # On the same line as the command, so that its line numbers stay right; the supervisor's `report` is executed,
        # not forked, and passes the exit code on.
        return f"trap 'exec {self.container.supervisor} report $?' EXIT; {line}"

    def _base_env(self) -> dict[str, str]:
        env = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8", **self.container.environment, "HOME": self.container.workspace}
        if self.profile.profile.kind == "terminal":
            env |= {"TERM": "dumb", "USER": "agent", "LOGNAME": "agent"}
        return env | dict(self.profile.profile.environment)

    def _start_env(self) -> dict[str, str]:
        """What the next command starts with: what the last one exported, or the image's, the login's, the profile's."""
        if self.terminal.env is not None:
            return dict(self.terminal.env)
        return self._base_env() | self.login_env | dict(self.profile.profile.environment)

    def _entrypoint(self) -> tuple[str, ...]:
        profile = self.profile.profile
        if profile.entrypoint is None:
            own = self.container.entrypoint
            return own + (profile.command if profile.command is not None else ())
        return profile.entrypoint + (profile.command or ())

    def _cwd(self, command: Command) -> str:
        profile = self.profile.profile
        start = profile.working_dir or self.container.workspace
        if profile.kind == "terminal" and self.terminal.cwd is not None:
            start = self.terminal.cwd
        if command.workdir is None:
            return start
        return posixpath.normpath(posixpath.join(self.container.workspace, command.workdir))

    # --- what it ends with -----------------------------------------------------------------------------------

    def _result(self, command: Command, process: Process, process_id: str) -> ProcessResult:
        ended, killed = process.exit, process.killed
        status, code = status_of(process, closed=self.state is SandboxState.CLOSED)
        notes = list(notes_on(process, command, status, self.doomed))
        if status is Status.KILLED and self.state is SandboxState.CLOSED:
            notes.append("Its sandbox was closed, reset or replaced while it ran.")
        if ended is not None and ended.reason is protocol.Reason.ITSELF:
            notes += self._keep_state(ended, command)
        survivors = killed.survivors if killed is not None else 0
        if survivors:
            self.doomed = f"{survivors} of its processes survived the kill"
        out, err = self._texts(process)
        return ProcessResult(
            status=status,
            exit_code=code,
            signal=signal_name(ended.signal) if ended is not None and ended.signal else None,
            stdout=out.text,
            stderr=err.text,
            truncated=bool(out.omitted_bytes or err.omitted_bytes),
            omitted_bytes=out.omitted_bytes + err.omitted_bytes,
            duration_ms=process.duration_ms,
            task_id=command.task.task,
            process_id=process_id,
            workdir=self._cwd(command) if self.terminal.cwd is None else self.terminal.cwd,
            survivors=survivors,
            notes=tuple(notes),
        )

    def _texts(self, process: Process) -> tuple[Text, Text]:
        return share(process.stdout, process.stderr, *process.totals())

    def _keep_state(self, ended: protocol.Exit, command: Command) -> list[str]:
        """Keep where the command ended for the task's next one; the notes say what could not be kept."""
        if self.profile.profile.kind != "terminal" or ended.signal:
            return []
        if not (ended.cwd or ended.env):
            start = self.terminal.cwd or self.container.workspace
            return [f"{_UNREPORTED} The next command starts in {start}, with the variables that this one started with."]
        env = _reported_env(ended.env)
        before = self._start_env()
        for key, value in command.env.items():
            # What this call alone was given is not the task's, unless the command changed it itself.
            if env.get(key) == value:
                del env[key]
                env |= {key: before[key]} if key in before else {}
        kept = {k: v for k, v in env.items() if k not in _SHELL_OWN}
        self.terminal = TerminalState(ended.cwd.decode("utf-8", "surrogateescape") or None, kept)
        if ended.cwd:
            return []
        return [f"The folder that the command ended in is gone; the next one starts in {self.container.workspace}."]


def _reported_env(entries: Sequence[bytes]) -> dict[str, str]:
    pairs = (entry.decode("utf-8", "surrogateescape").partition("=") for entry in entries)
    return {key: value for key, _, value in pairs if key}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
