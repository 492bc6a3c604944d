"""Makes the requests that start a sandbox's commands, and keeps where the last terminal command ended."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from taskcell.engine.base import Container
from taskcell.model import Command, Profile
from taskcell.process.output import Capture
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.protocol import SpawnFlag

#: Seconds between TERM and KILL: time for a program to clean up that a caller can still wait for.
GRACE = 2.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: TERM for commands with a terminal, and for those without one.
TERMINAL_TYPE, NO_TERMINAL_TYPE = "xterm-256color", "dumb"
#: Variables that a shell sets itself; the user did not export them.
SHELL_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TASKCELL_STATE_FD"})
_EXEC = re.compile(r"\bexec\b")
_UNREPORTED = (
    "The command did not report where it ended: it has a syntax error, replaced its shell by exec inside a function, "
    "has an EXIT trap of its own, or exports more than 64 KiB."
)


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

    def command(self, command: Command, tag: bytes) -> requests.Spawn:
        """Make the request for a tool's command."""
        flags = SpawnFlag.STDIN if command.stdin or command.takes_input else SpawnFlag.NONE
        argv: tuple[str, ...]
        if self.profile.kind == "terminal":
            flags |= SpawnFlag.MERGE_STDERR
            shell = (self.shell or command.argv[0], *command.argv[1:-1])
            line = command.argv[-1]
            if not command.background:
                flags |= SpawnFlag.REPORT_STATE
                line = self._with_report(line)
            argv = (*shell, line)
        else:
            argv = (*self._entrypoint(), *command.argv)
        if command.pty is not None:
            flags |= SpawnFlag.PTY
        env = self.start_env() | self._given(command)
        rows, cols = command.pty or (0, 0)
        return self.request(argv, env, self.folder(command), flags, command.timeout, tag=tag, rows=rows, cols=cols)

    def request(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        flags: SpawnFlag,
        timeout: float,
        *,
        tag: bytes = b"",
        rows: int = 0,
        cols: int = 0,
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
            rows=rows,
            cols=cols,
            tag=tag,
        )

    def _with_report(self, line: str) -> str:
        # On the command's own first line, so that its line numbers stay right. The supervisor's `report` replaces the
        # shell instead of being forked, and passes the exit code on.
        report = f"{self.container.supervisor} report"
        traps = f"trap 'exec {report} $?' EXIT; "
        if _EXEC.search(line) and posixpath.basename(self.shell) == "bash":
            # A shell that `exec` replaces runs no EXIT trap, so it reports just before. Only if the word occurs at all,
            # for this trap runs before each simple command.
            traps += f"trap 'case $BASH_COMMAND in exec\\ [!0-9\\<\\>]*) {report} 0;; esac' DEBUG; "
        return traps + line

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

    def keep_state(self, ended: events.Exit, command: Command) -> list[str]:
        """Keep where the command ended for the task's next one, and return notes on what could not be kept."""
        is_reported = self.profile.kind == "terminal" and not command.background
        if not is_reported or ended.signal or ended.reason is not protocol.Reason.ITSELF:
            return []
        if not (ended.cwd or ended.env):
            start = self.terminal.cwd or self.container.workspace
            return [f"{_UNREPORTED} The next command starts in {start}, with the variables that this one started with."]
        env = reported_env(ended.env)
        before = self.start_env()
        for key, value in self._given(command).items():
            # A variable of this call alone is not kept, unless the command changed it.
            if env.get(key) == value:
                del env[key]
                env |= {key: before[key]} if key in before else {}
        kept = {k: v for k, v in env.items() if k not in SHELL_OWN}
        self.terminal = TerminalState(ended.cwd.decode("utf-8", "surrogateescape") or None, kept)
        if ended.cwd:
            return []
        return [f"The folder that the command ended in is gone; the next one starts in {self.container.workspace}."]

    def take_up(self, cwd: bytes, env: Sequence[bytes], given: Iterable[str]) -> None:
        """Start the next command where one of an earlier server ended, without the variables of that call alone."""
        before, kept = self.start_env(), reported_env(env)
        for name in given:
            kept.pop(name, None)
            kept |= {name: before[name]} if name in before else {}
        kept = {k: v for k, v in kept.items() if k not in SHELL_OWN}
        self.terminal = TerminalState(cwd.decode("utf-8", "surrogateescape") or None, kept)


def reported_env(entries: Sequence[bytes]) -> dict[str, str]:
    """Return the variables of a state report."""
    pairs = (entry.decode("utf-8", "surrogateescape").partition("=") for entry in entries)
    return {key: value for key, _, value in pairs if key}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
