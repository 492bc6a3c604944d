"""Plain, frozen values that name the things of the domain. Sizes are in bytes and times in seconds (float)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar, Literal

from taskcell.fitting import without_middle
from taskcell.host_folder import HostFolder
from taskcell.mounts import Mount, Tmpfs
from taskcell.refusal import Refusal
from taskcell.secret import Secret
from taskcell.text import ended, remarks
from taskcell.units import SHM, format_milliseconds, ipc_size

MIB = 1 << 20
GIB = 1 << 30

#: The unprivileged user that commands run as unless a profile names another.
DEFAULT_USER = "1000:1000"
WORKSPACE = "/workspace"
LOCAL_PRINCIPAL = "local"
DEFAULT_TASK = "default"


@dataclass(frozen=True, slots=True)
class TaskKey:
    """A task inside one principal's namespace. Two principals never share a task, whatever its name."""

    principal: str
    task: str

    @property
    def digest(self) -> str:
        """16 hex digits that stand for the key in names, labels and paths, where its raw words never appear."""
        joined = f"{len(self.principal)}:{self.principal}{self.task}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(joined).hexdigest()[:16]


class Reuse(Enum):
    """How long a sandbox serves: its whole task, or one call."""

    TASK = "task"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that shapes a container, checked for form but not yet authorised.

    Arguments:
        name, image: `terminal`, that of an environment, or the skill's, as in the pool's key; full reference.
        entrypoint: argument list that a skill's call is appended to; None means the image's own.
        command: fixed arguments after the entrypoint; None means the image's own where `entrypoint` is None too.
        environment: variables of each process, in order; later ones win.
        working_dir: absolute path in the container; None means the workspace.
        user: `uid`, `uid:gid` or names that the image knows.
        memory, pids, cpus: bytes; a count; cores. None means unbounded, which the policy refuses for the first two.
        network, egress: `none`, or a network's name; patterns of hosts that are reached by name, `@NAME` for a group.
        tmpfs, mounts: bounded file systems in memory; mounts beside the workspace, which is at `/workspace`.
        host_namespaces: those that it shares with the host, of `ipc`, `uts`, `user`; `network` may be the host's too.
        runtime: name of the engine's runtime, such as `runsc`; empty means the engine's default.
        disk: bytes that a writable root file system may hold; None means unbounded.
        own: folders of the image that are given to the user when a sandbox starts.
        shell, setup, setup_timeout: what runs a terminal's command line; a line that is run once in each new sandbox,
            before its first call, and the seconds that it may take.
        secrets: variables of commands whose values are masked in all output.
        on_host_folder: a folder of the host holds the task's files, and not a volume of the engine.
        folder, is_reader: the host's that is every task's workspace, if any; commands may only read the task's files.
        remove: remove the container when its task closes; False keeps it, stopped, for inspection.
        kind: decides stderr, the state report and the meaning of a non-zero exit code.
        hostname, hosts, dns: its name for itself, names with addresses, and the servers that it asks for others.
        refused: refusals of what was asked for and no field can hold. A profile with any is never authorised.
    """

    name: str
    image: str
    kind: Literal["terminal", "skill"]
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    working_dir: str | None = None
    user: str = DEFAULT_USER
    memory: int | None = 2 * GIB
    cpus: float | None = 1.0
    pids: int | None = 256
    network: str = "none"
    egress: tuple[str, ...] = ()
    read_only: bool = True
    tmpfs: tuple[Tmpfs, ...] = ()
    mounts: tuple[Mount, ...] = ()
    cap_add: tuple[str, ...] = ()
    host_namespaces: tuple[str, ...] = ()
    gpus: str = ""
    platform: str = ""
    runtime: str = ""
    sudo: bool = False
    on_host_folder: bool = False
    folder: HostFolder | None = None
    is_reader: bool = False
    remove: bool = True
    reuse: Reuse = Reuse.TASK
    disk: int | None = None
    own: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    setup: str = ""
    setup_timeout: float = 180.0
    secrets: tuple[Secret, ...] = ()
    hostname: str = ""
    hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @property
    def shm(self) -> int:
        """Bytes of /dev/shm; 64 MiB is the container engine's own size."""
        return next((tmpfs.size for tmpfs in self.tmpfs if tmpfs.target == SHM), 64 * MIB)

    @property
    def kept_in_memory(self) -> int:
        """Bytes that may stay in memory when no command runs: its file systems, and System V IPC."""
        return sum(tmpfs.size for tmpfs in self.tmpfs) + ipc_size(self.shm)


@dataclass(frozen=True, slots=True)
class Command:
    """One command, bound to its profile but not yet authorised.

    Arguments:
        tool: MCP name of the tool that was called.
        argv: what is executed. For a terminal: the shell's words and one line for it. For a skill: what comes after the
            entrypoint and `command` of the profile, or after the image's entrypoint where the profile names none.
        stdin: bytes for standard input; None means an empty one (`/dev/null`).
        workdir: absolute, or relative to the workspace; None means where the task's last terminal command ended,
            or the profile's working directory.
        env: variables for this command alone.
        timeout: seconds; the supervisor kills the command then. `math.inf`: it runs as long as its sandbox.
        wait: seconds that the caller waits before the command goes on without it; None means to its end.
        background: the caller waits only until it was started.
        pty, strip_ansi: rows and columns of a terminal, None means pipes; show no control sequences.
        text: the command as a person reads it: the shell line, or the quoted argv. Policy rules match it.
        notes: sentences for the answer about how the call's arguments were taken.
        confirmed: names of policy rules that asked a person, who allowed this very command.
        user: whom it runs as; empty: the profile's own.
    """

    task: TaskKey
    tool: str
    profile: Profile
    argv: tuple[str, ...]
    text: str
    stdin: bytes | None = field(default=None, repr=False)
    workdir: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 180.0
    wait: float | None = None
    background: bool = False
    pty: tuple[int, int] | None = None
    strip_ansi: bool = False
    notes: tuple[str, ...] = ()
    confirmed: frozenset[str] = frozenset()
    user: str = ""

    @property
    def takes_input(self) -> bool:
        """Whether its standard input stays open, so that a client can write to it while it runs."""
        return self.pty is not None or (self.background and self.stdin is None)

    @property
    def shows_ansi(self) -> bool:
        """Its output is shown with escape sequences: they are the program's answer to having a terminal."""
        return self.pty is not None and not self.strip_ansi


class Status(Enum):
    """How a run ended, or that it goes on. The values are those of `status` in a tool's answer."""

    EXITED = "exited"
    RUNNING = "running"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    OOM_KILLED = "oom_killed"
    KILLED = "killed"
    LOST = "lost"


#: Ends that are failures for every tool.
_ERRORS = frozenset({Status.TIMED_OUT, Status.OOM_KILLED, Status.LOST})


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """The result of a run: the fields of a tool's structured content.

    Arguments:
        omitted_bytes: bytes of output that were left out between its head and its tail.
        survivors: processes that a kill could not end; None if that is unknown.
        kind: the kind of tool that started it; it decides what a non-zero exit code means.
        left_out: a note on output that is not in this answer, and where the whole is; empty if all is.
        cursor, stderr_cursor: where the output begins that is not in this answer; None for a run that has ended.
    """

    status: Status
    exit_code: int | None
    signal: str | None
    stdout: str
    stderr: str
    truncated: bool
    omitted_bytes: int
    duration_ms: int
    task_id: str
    process_id: str
    workdir: str
    survivors: int | None
    kind: Literal["terminal", "skill"]
    notes: tuple[str, ...] = ()
    left_out: str = ""
    cursor: int | None = None
    stderr_cursor: int | None = None

    pictures: ClassVar[tuple[()]] = ()
    _plain: ClassVar[tuple[str, ...]] = (
        *("exit_code", "signal", "stdout", "stderr", "truncated", "omitted_bytes", "duration_ms", "task_id"),
        *("process_id", "workdir", "survivors"),
    )

    @property
    def is_error(self) -> bool:
        """Whether the run failed: some ends always count as failures, a non-zero exit code only for a skill."""
        return self.status in _ERRORS or (self.kind == "skill" and self.exit_code not in (0, None))

    @property
    def extent(self) -> int:
        """Characters of the longer stream."""
        return max(len(self.stdout), len(self.stderr))

    def cut(self, most: int) -> ProcessResult:
        """Return the result with head and tail of each stream: `most` characters, and a line between them."""
        (out, out_bytes), (err, err_bytes) = without_middle(self.stdout, most), without_middle(self.stderr, most)
        omitted = self.omitted_bytes + out_bytes + err_bytes
        return replace(self, stdout=out, stderr=err, truncated=omitted > 0, omitted_bytes=omitted)

    def structured(self) -> dict[str, Any]:
        """Return JSON-ready fields."""
        cursors = {"cursor": self.cursor, "stderr_cursor": self.stderr_cursor}
        return {
            "status": self.status.value,
            **{name: getattr(self, name) for name in self._plain},
            "notes": [*filter(None, (self.left_out, *self.notes))],
            **{name: cursor for name, cursor in cursors.items() if cursor is not None},
        }

    def output(self) -> str:
        """Return what the program printed, with stderr under `[stderr]`."""
        return ended(self.stdout) + (f"[stderr]\n{ended(self.stderr)}" if self.stderr else "")

    def said(self) -> str:
        """Return a line about the end, and the notes."""
        return remarks(self.ending(), filter(None, (self.left_out, *self.notes)))

    def ending(self) -> str:
        """Describe in a few words how the run ended."""
        after, signal = format_milliseconds(self.duration_ms), f" ({self.signal})" if self.signal else ""
        survivors = "unknown" if self.survivors is None else self.survivors
        killed = f"after {after}; killed; survivors {survivors}"
        more = "" if self.stderr_cursor is None else f", stderr_cursor {self.stderr_cursor}"
        go_on = "" if self.cursor is None else f"; cursor {self.cursor}{more}"
        words = {
            Status.EXITED: f"exit {self.exit_code}{signal} in {after}",
            Status.RUNNING: f"still running after {after} as process {self.process_id}{go_on}",
            Status.TIMED_OUT: f"timed out {killed}",
            Status.CANCELLED: f"cancelled {killed}",
            Status.OOM_KILLED: f"out of memory {killed}",
            Status.KILLED: f"killed{signal} after {after}; survivors {survivors}",
            Status.LOST: f"the sandbox died after {after}; the command is not run again",
        }
        return words[self.status]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call as a client sent it. Nothing in it is checked yet.

    Arguments:
        hand_off: return `running` when the command outlives its `wait`; False: wait until it ends.
        confirmed: as in `Command`.
    """

    principal: str
    tool: str
    arguments: Mapping[str, Any]
    hand_off: bool = True
    confirmed: frozenset[str] = frozenset()
