"""Makes the requests that start a sandbox's commands."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskcell.engine.base import Container
from taskcell.model import Command, Profile
from taskcell.process.held import HELD_WINDOW, LINGERING_SPOOL
from taskcell.process.output import Capture
from taskcell.sandbox.shell import PROLOGUE_SUFFIX, ShellRun, Way, plan
from taskcell.sandbox.terminal_state import Beginning, TerminalState
from taskcell.supervisor import requests
from taskcell.supervisor.protocol import SpawnFlag

#: Seconds between TERM and KILL: time for a program to clean up that a caller can still wait for.
GRACE = 2.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: TERM for commands with a terminal, and for those without one.
TERMINAL_TYPE, NO_TERMINAL_TYPE = "xterm-256color", "dumb"
#: Without a terminal nothing waits for a person: no pager, editor or prompt. Image, profile and call may say otherwise.
UNATTENDED = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
}
#: git refuses a repository of another user, whose hooks could do harm. The users of one task trust each other: each can
#: write what the others execute. (git-config(1): `safe.directory` counts from the environment, too.)
_TRUSTED = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
#: Why a shell that was to report where a command ended has not: where the line names exec, and elsewhere.
_REPLACED, _NOT_LEFT = "its shell was replaced by exec", "its shell was not left to end by itself"


@dataclass(slots=True)
class Spawner:
    """Makes the requests that start commands in one sandbox.

    Arguments:
        output_chars: characters of output in one result.
        spool: bytes that the supervisor keeps of each stream of a process.
        terminal: where the next terminal command starts.
        login_env: variables that the login profile adds to the image's; its PATH is the two joined.
        shell: path of the terminal's shell.
        programs: commonly wanted ones that the image has, if no answer has named them yet.
        proxies: variables by which programs find the sandbox's proxy.
        secrets: variables of each command that no later one starts with because an earlier one had them.
    """

    profile: Profile
    container: Container
    output_chars: int
    spool: int
    terminal: TerminalState = field(default_factory=TerminalState)
    login_env: dict[str, str] = field(default_factory=dict)
    shell: str = ""
    programs: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def shell_run(self, command: Command) -> ShellRun | None:
        """How the shell is given a terminal command; None for other commands."""
        if self.profile.kind != "terminal":
            return None
        if command.background:
            return ShellRun(command.argv[-1])
        env = self.start_env() | self.given(command)
        return plan(command.argv[-1], self.shell or command.argv[0], env)

    def beginning(self, command: Command, run: ShellRun) -> Beginning:
        """Return what the end of a foreground command is judged by. Arguments as in `command`."""
        stays = run.way is Way.NONE and not run.unreported
        return Beginning(
            given=self.given(command),
            folder=self.folder(command) if stays else None,
            unreported=run.unreported or (_REPLACED if "exec" in run.line else _NOT_LEFT),
        )

    def command(self, command: Command, run: ShellRun | None, number: int, tag: bytes) -> requests.Spawn:
        """Make the request for a tool's command. `run` is what `shell_run` says of it."""
        flags = SpawnFlag.STDIN if command.stdin or command.takes_input else SpawnFlag.NONE
        folder, env, prologue = self.folder(command), self.start_env() | self.given(command), ""
        if run is None:
            argv = (*self._entrypoint(), *(command.argv or self._default_arguments()))
        else:
            fifo, shell, name = self.report_of(number), self.shell or command.argv[0], command.argv[0]
            argv = (shell, *command.argv[1:-1], run.argument(fifo))
            prologue = run.prologue(fifo, name)
            flags |= SpawnFlag.MERGE_STDERR | SpawnFlag.HIDE_LAST
            # `$0`, and what stands before the shell's own errors, is the name that it was configured by.
            if "/" not in name:
                flags |= SpawnFlag.SHORT_NAME
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

    def apart(self, command: Command, tag: bytes, *, is_line: bool, lingers: bool = False) -> requests.Spawn:
        """Make the request for a command that no earlier one has changed, and whose output is kept whole.

        Arguments:
            is_line: its last word is a line for a shell, which stands in no argument list that others can read.
            lingers: its reader may come back.
        """
        first = self.first_env()
        unattended = {key: value for key, value in UNATTENDED.items() if key not in first}
        given = {**unattended, **self.secrets, **command.env}
        start = self.profile.working_dir or self.container.workspace
        folder = posixpath.normpath(posixpath.join(start, command.workdir or "."))
        flags = SpawnFlag.HOLD | (SpawnFlag.STDIN if command.stdin or command.takes_input else SpawnFlag.NONE)
        flags |= SpawnFlag.HIDE_LAST if is_line else SpawnFlag.NONE
        if command.user:
            first |= {"USER": command.user, "LOGNAME": command.user}
        request = self.request(command.argv, first | given, folder, flags, command.timeout)
        spool, user = LINGERING_SPOOL if lingers else HELD_WINDOW, _bytes(command.user) or request.user
        return replace(request, tag=tag, user=user, spool=spool, credit=HELD_WINDOW)

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
        """Make a request with this sandbox's user and bounds. `timeout` in seconds; `math.inf` for none."""
        return requests.Spawn(
            argv=[_bytes(word) for word in argv],
            env={_bytes(key): _bytes(value) for key, value in env.items()},
            cwd=_bytes(cwd),
            user=b"" if self.container.user is None else _bytes(self.container.user),
            flags=flags,
            timeout_ms=max(1, math.ceil(timeout * 1000)) if math.isfinite(timeout) else 0,
            grace_ms=round(GRACE * 1000),
            spool=self.spool,
            credit=Capture(self.output_chars).head_bytes,
        )

    def base_env(self) -> dict[str, str]:
        """Return the variables of the image, our own, and the profile's; later ones win."""
        own = self.container.environment
        env = {"PATH": DEFAULT_PATH, "LC_CTYPE": "C.UTF-8", **own, **self.proxies, "HOME": self.container.workspace}
        if self.profile.kind == "terminal":
            env |= {"TERM": NO_TERMINAL_TYPE, "USER": "agent", "LOGNAME": "agent"}
        if self.container.shares_files:
            env |= _TRUSTED
        return env | dict(self.profile.environment)

    def start_env(self) -> dict[str, str]:
        """Return what the next command starts with: the last one's exports, else those of image, login and profile."""
        return self.first_env() if self.terminal.env is None else dict(self.terminal.env)

    def first_env(self) -> dict[str, str]:
        """Return what the first command starts with: the variables of image, login and profile."""
        return self.base_env() | self.login_env | dict(self.profile.environment)

    @property
    def exported(self) -> frozenset[str]:
        """Names of the variables that commands have exported."""
        return frozenset(self.terminal.env or ()) - self.first_env().keys()

    def given(self, command: Command) -> dict[str, str]:
        """Return the variables of this one call."""
        if self.profile.kind != "terminal":
            return {**self.secrets, **command.env}
        own = {"TERM": TERMINAL_TYPE} if command.pty is not None else UNATTENDED
        known = self.start_env()
        # TERM is another one on a terminal, whatever was exported.
        given = {key: value for key, value in own.items() if command.pty is not None or key not in known}
        return {**given, **self._own_secrets(), **command.env}

    def _own_secrets(self) -> dict[str, str]:
        """The secrets whose variables no command has exported anew."""
        exported = self.terminal.env or {}
        return {
            name: value for name, value in self.secrets.items() if exported.get(name) in (None, self._without(name))
        }

    def _without(self, name: str) -> str | None:
        """What a variable would hold without its secret."""
        return self.first_env().get(name)

    def given_before(self, names: Iterable[str]) -> dict[str, str | None]:
        """Return what a call of an earlier server was given: `names` by the call itself, with values nobody knows."""
        known = self.start_env()
        unattended: dict[str, str | None] = {key: value for key, value in UNATTENDED.items() if key not in known}
        return {**unattended, **self._own_secrets(), **dict.fromkeys(names)}

    def _entrypoint(self) -> tuple[str, ...]:
        profile = self.profile
        if profile.entrypoint is None:
            own = self.container.entrypoint
            return own + (profile.command if profile.command is not None else ())
        return profile.entrypoint + (profile.command or ())

    def _default_arguments(self) -> tuple[str, ...]:
        """The image's own, which its program gets where nobody names any."""
        return () if self.profile.entrypoint is not None or self.profile.command else self.container.command

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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
