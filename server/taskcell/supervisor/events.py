"""The supervisor's events, one class for each type of frame; `docs/protocol.md` explains the fields."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.supervisor.protocol import FailedStage, Loopback, ProcessState, Reason, Stream, WelcomeFlag


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to HELLO: of the session with this number, the supervisor has taken `place` bytes of requests."""

    process: int
    version: int
    flags: WelcomeFlag
    uptime_ms: int
    session: int
    place: int


@dataclass(frozen=True, slots=True)
class Spawned:
    process: int
    pid: int


@dataclass(frozen=True, slots=True)
class Failed:
    process: int
    stage: FailedStage
    errno: int
    message: str


@dataclass(frozen=True, slots=True)
class Output:
    process: int
    stream: Stream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StdinAck:
    process: int
    count: int


@dataclass(frozen=True, slots=True)
class Exit:
    process: int
    reason: Reason
    exit_code: int
    signal: int
    oom_kills: int
    duration_us: int
    user_us: int
    system_us: int
    max_rss_kb: int
    stdout_total: int
    stderr_total: int
    descendants: int | None
    refused_forks: int
    report_size: int
    report: bytes


@dataclass(frozen=True, slots=True)
class Killed:
    process: int
    reason: Reason
    survivors: int | None
    stdout_total: int
    stderr_total: int


@dataclass(frozen=True, slots=True)
class Gone:
    process: int


@dataclass(frozen=True, slots=True)
class ListedProcess:
    """A process in the list; `alive` processes of its tree are alive, its main process among them; None: unknown."""

    process: int
    state: ProcessState
    pid: int
    age_ms: int
    stdout_start: int
    stdout_total: int
    stderr_start: int
    stderr_total: int
    reason: Reason
    exit_code: int
    signal: int
    oom_kills: int
    duration_us: int
    survivors: int | None
    alive: int | None
    tag: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of the list of processes; with the part that `is_last` it is complete."""

    process: int
    is_last: bool
    entries: tuple[ListedProcess, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream, of which the supervisor keeps bytes `start` to `total`. `stream` None: no such process."""

    process: int
    stream: Stream | None
    start: int
    total: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LastState:
    """A piece of the state report of the last process that ended by itself, and its tag; all empty without one."""

    process: int
    tag: bytes
    size: int
    report: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    process: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The supervisor has taken so many bytes of the session's requests."""

    process: int
    place: int


@dataclass(frozen=True, slots=True)
class Error:
    process: int
    message: str


@dataclass(frozen=True, slots=True)
class Sudo:
    """The result of setting up sudo; `problem` is empty if sudo is ready. Unasked: what sudo turned out to do."""

    process: int
    problem: str


@dataclass(frozen=True, slots=True)
class Listening:
    """Where programs of the sandbox reach the server; port 0: nowhere, by `errno`."""

    process: int
    port: int
    addresses: Loopback
    errno: int


@dataclass(frozen=True, slots=True)
class TunnelOpened:
    """A tunnel stands: a program has connected, or an OPEN has succeeded. `process` is the tunnel's number.

    `window` bytes may be on their way to the program without a TunnelCredit.
    """

    process: int
    window: int


@dataclass(frozen=True, slots=True)
class TunnelData:
    process: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TunnelCredit:
    process: int
    amount: int


@dataclass(frozen=True, slots=True)
class TunnelEnd:
    """The program sends no more; it may go on to read."""

    process: int


@dataclass(frozen=True, slots=True)
class TunnelReset:
    process: int
    errno: int


TunnelEvent = TunnelOpened | TunnelData | TunnelCredit | TunnelEnd | TunnelReset

Event = (
    Welcome
    | Spawned
    | Failed
    | Output
    | StdinAck
    | Exit
    | Killed
    | Gone
    | Listing
    | Data
    | LastState
    | Pong
    | Acknowledged
    | Error
    | Sudo
    | Listening
    | TunnelEvent
)
