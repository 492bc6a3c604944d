"""Makes the requests that start a sandbox's commands, and keeps where the last terminal command ended."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskcell.engine.base import Container
from taskcell.model import Command, Profile
from taskcell.process.output import Capture
from taskcell.sandbox.shell import PROLOGUE_SUFFIX, ShellRun, Way, parse_report, plan
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import SpawnFlag

#: Seconds between TERM and KILL: time for a program to clean up that a caller can still wait for.
GRACE = 2.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: TERM for commands with a terminal, and for those without one.
TERMINAL_TYPE, NO_TERMINAL_TYPE = "xterm-256color", "dumb"
#: Variables that a shell sets itself; the user did not export them.
SHELL_OWN = frozenset({"_", "SHLVL", "BASH_ENV"})
#: Bytes of a variable, and of all, that a later command is started with: Linux takes no longer string (MAX_ARG_STRLEN,
#: include/uapi/linux/binfmts.h), and they share a frame to the supervisor with the command itself.
VARIABLE_MAX, VARIABLES_MAX = 131_071, 512 * 1024


@dataclass(slots=True)
class TerminalState:
    """Folder and variables with which the last terminal command ended: the next one starts with them."""

    cwd: str | None = None
    env: dict[str, str] | None = None


@dataclass(slots=True)
class Spawner:
    """Makes the requests that start commands in one sandbox.

    Arguments:
        output_chars: characters of output in one result.
        spool: bytes that the supervisor keeps of each stream of a process.
        terminal: where the next terminal command starts.
        login_env: variables that the login profile adds to the image's; its PATH is the two joined.
        shell: path of the terminal's shell.
    """

    profile: Profile
    container: Container
    output_chars: int
    spool: int
    terminal: TerminalState = field(default_factory=TerminalState)
    login_env: dict[str, str] = field(default_factory=dict)
    shell: str = ""

    def shell_run(self, command: Command) -> ShellRun | None:
        """How the shell is given a terminal command; None for other commands."""
        if self.profile.kind != "terminal":
            return None
        if command.background:
            return ShellRun(command.argv[-1])
        env = self.start_env() | self._given(command)
        return plan(command.argv[-1], self.shell or command.argv[0], env)

    def command(self, command: Command, run: ShellRun | None, number: int, tag: bytes) -> requests.Spawn:
        """Make the request for a tool's command. `run` is what `shell_run` says of it."""
        flags = SpawnFlag.STDIN if command.stdin or command.takes_input else SpawnFlag.NONE
        folder, env, prologue = self.folder(command), self.start_env() | self._given(command), ""
        if run is None:
            argv = (*self._entrypoint(), *command.argv)
        else:
            fifo, shell = self.report_of(number), self.shell or command.argv[0]
            argv = (shell, *command.argv[1:-1], run.argument(fifo))
            prologue = run.prologue(fifo, shell)
            flags |= SpawnFlag.MERGE_STDERR | SpawnFlag.HIDE_LAST
            if run.way is not Way.NONE:
                flags |= SpawnFlag.REPORT_STATE
            if prologue:
                env["BASH_ENV"] = fifo + PROLOGUE_SUFFIX
            if command.workdir is not None:
                env["PWD"] = folder
        if command.pty is not None:
            flags |= SpawnFlag.PTY
        request = self.request(argv, env, folder, flags, command.timeout)
        rows, cols = command.pty or (0, 0)
        return replace(request, tag=tag, rows=rows, cols=cols, prologue=_bytes(prologue))

    def report_of(self, number: int) -> str:
        """Path of a process's state report; the supervisor calls it so (docs/protocol.md)."""
        return f"{self.container.reports}/{number}"

    def request(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        flags: SpawnFlag,
        timeout: float,
    ) -> requests.Spawn:
        """Make a request with this sandbox's user and bounds. `timeout` in seconds."""
        return requests.Spawn(
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

    def base_env(self) -> dict[str, str]:
        """Return the variables of the image, our own, and the profile's; later ones win."""
        own = self.container.environment
        env = {"PATH": DEFAULT_PATH, "LC_CTYPE": "C.UTF-8", **own, "HOME": self.container.workspace}
        if self.profile.kind == "terminal":
            env |= {"TERM": NO_TERMINAL_TYPE, "USER": "agent", "LOGNAME": "agent"}
        return env | dict(self.profile.environment)

    def start_env(self) -> dict[str, str]:
        """Return what the next command starts with: the last one's exports, else those of image, login and profile."""
        if self.terminal.env is not None:
            return dict(self.terminal.env)
        return self.base_env() | self.login_env | dict(self.profile.environment)

    @staticmethod
    def _given(command: Command) -> dict[str, str]:
        """Return the variables of this one call."""
        return ({} if command.pty is None else {"TERM": TERMINAL_TYPE}) | dict(command.env)

    def _entrypoint(self) -> tuple[str, ...]:
        profile = self.profile
        if profile.entrypoint is None:
            own = self.container.entrypoint
            return own + (profile.command if profile.command is not None else ())
        return profile.entrypoint + (profile.command or ())

    def folder(self, command: Command) -> str:
        """Return the folder in which a command starts."""
        start = self.profile.working_dir or self.container.workspace
        if self.profile.kind == "terminal" and self.terminal.cwd is not None:
            start = self.terminal.cwd
        if command.workdir is None:
            return start
        return posixpath.normpath(posixpath.join(self.container.workspace, command.workdir))

    @property
    def next_folder(self) -> str:
        """The folder in which the next command starts unless it names one."""
        return self.terminal.cwd or self.profile.working_dir or self.container.workspace

    def keep_state(self, ended: events.Exit, command: Command, run: ShellRun, report: bytes) -> list[str]:
        """Keep where the command ended for the task's next one, and return notes on what could not be kept.

        Arguments:
            report: what its shell reported, whole.
        """
        if command.background or ended.signal or ended.reason is not protocol.Reason.ITSELF:
            return []
        if run.way is Way.NONE and not run.unreported:
            # It can have changed neither folder nor variables.
            self.terminal.cwd = self.folder(command)
            return []
        found = parse_report(report)
        if found is None:
            why = run.unreported or "its shell was replaced by exec, or was not left to end by itself"
            start = self.terminal.cwd or self.container.workspace
            return [
                f"Where the command ended is not known: {why}. The next command starts in {start}, with the variables "
                "that this one started with."
            ]
        env, before = dict(found.env), self.start_env()
        for key, value in self._given(command).items():
            # A variable of this call alone is not kept, unless the command changed it.
            if env.get(key) == value:
                del env[key]
                env |= {key: before[key]} if key in before else {}
        return self._keep(found.folder, env)

    def _keep(self, folder: str, env: Mapping[str, str]) -> list[str]:
        kept, dropped = startable({key: value for key, value in env.items() if key not in SHELL_OWN})
        self.terminal = TerminalState(folder or None, kept)
        notes = []
        if not folder:
            notes.append(f"The folder that the command ended in is gone; the next one starts in {self.next_folder}.")
        if dropped:
            notes.append(f"Too large to start a program with, so not kept for the next command: {', '.join(dropped)}.")
        return notes

    def take_up(self, report: bytes, given: Iterable[str]) -> None:
        """Start the next command where one of an earlier server ended, without the variables of that call alone."""
        found = parse_report(report)
        if found is None:
            return
        before, env = self.start_env(), dict(found.env)
        for name in given:
            env.pop(name, None)
            env |= {name: before[name]} if name in before else {}
        self._keep(found.folder, env)


def startable(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The variables that a program can be started with, and the names of the others: the largest go first."""
    sizes = {key: len(_bytes(key)) + len(_bytes(value)) + 2 for key, value in env.items()}
    total, dropped = sum(sizes.values()), []
    for key in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if sizes[key] <= VARIABLE_MAX and total <= VARIABLES_MAX:
            break
        dropped.append(key)
        total -= sizes[key]
    return {key: value for key, value in env.items() if key not in dropped}, dropped


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
