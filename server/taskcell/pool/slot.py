"""One place of the pool, a call's claim on it, and one step of a decision: plain state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import anyio

from taskcell.errors import TaskcellError
from taskcell.model import Reuse, TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.sandbox.sandbox import Sandbox, SandboxState

if TYPE_CHECKING:
    from taskcell.deployment.records import SandboxRecord

SlotKey = tuple[TaskKey, str]
#: What a call leases: a sandbox, and notes for its answer.
Leased = AsyncIterator[tuple[Sandbox, list[str]]]

#: The task of warm sandboxes, which no task has yet. No principal has an empty name.
NOBODY = TaskKey("", "")


class SlotState(Enum):
    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Slot:
    """A place in the pool: (task, profile), and the sandbox that is or will be in it.

    A sandbox for one call has a key of its own while that call has it, so that no other call gets it; a warm one has a
    key of its own until a task takes it.

    Arguments:
        settled: set when the creation has succeeded or failed.
        idle: set when the last lease of a retired slot has ended.
        replaces: the slot that this one is to succeed, until it has.
        inherited: the sandbox of an earlier server that is to be adopted, until it has been.
        had: the task that an adopted sandbox was made for; another one than its own when two servers had that task.
        outdated: its container was made with another profile than `profile`, or with an unknown one.
        nonce: what the token of its sandbox was derived from.
        fingerprint: of its profile, for other servers; empty until it is needed.
        servers: how many of its leases are for processes without a time-out.
        changed: when (monotonic seconds) the last call ended that may have changed files.
        ended: how the task's last sandbox of this profile ended; empty when no answer needs to say it.
        reservation: what keeps its sandbox for the task's next call, which closes it.
    """

    key: SlotKey
    profile: AuthorizedProfile
    created: float
    state: SlotState = SlotState.CREATING
    sandbox: Sandbox | None = None
    error: TaskcellError | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)
    idle: anyio.Event = field(default_factory=anyio.Event)
    replaces: Slot | None = None
    inherited: SandboxRecord | None = None
    had: TaskKey | None = None
    outdated: bool = False
    nonce: str = ""
    fingerprint: str = ""
    leases: int = 0
    servers: int = 0
    idle_since: float = 0.0
    changed: float = 0.0
    ended: str = ""
    notes: list[str] = field(default_factory=list)
    reservation: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.changed = self.changed or self.idle_since

    def __repr__(self) -> str:
        task, profile = self.key
        return f"<Slot {task.digest}/{profile} {self.state.value}, {self.leases} leases>"

    @property
    def task(self) -> TaskKey:
        return self.key[0]

    @property
    def shared_key(self) -> SlotKey:
        """The key that calls look under: every slot's own, but for one that a single call has."""
        return self.key[0], self.profile.name

    @property
    def is_warm(self) -> bool:
        """No task has it yet."""
        return self.key[0] is NOBODY

    @property
    def is_in_place(self) -> bool:
        """The pool has it: it is neither leaving nor gone."""
        return self.state in (SlotState.CREATING, SlotState.READY)

    @property
    def is_for_one_call(self) -> bool:
        return self.profile.reuse is Reuse.CALL

    @property
    def holds_files(self) -> bool:
        """Its container runs and keeps the workspace alive."""
        return self.sandbox is not None and self.sandbox.state is SandboxState.READY and self.sandbox.channel.alive

    @property
    def usable(self) -> bool:
        """It may be leased: it is being made, or its sandbox is in order."""
        if self.state is SlotState.CREATING:
            return True
        return self.state is SlotState.READY and self.sandbox is not None and self.sandbox.usable

    @property
    def is_busy(self) -> bool:
        """It is not idle: a call or what one left has it, one of its processes lives, or it is still being made."""
        if self.leases or self.sandbox is None:
            return True
        return bool(self.sandbox.channel.living) and self.sandbox.usable

    @property
    def is_left_running(self) -> bool:
        """What runs in it is all that no call waits for and no time-out ends, such as servers."""
        if self.sandbox is None or self.leases > self.servers or self.is_for_one_call or self.is_warm:
            return False
        return self.is_busy and self.usable

    @property
    def quiet_since(self) -> float:
        """When its last call or process ended (monotonic seconds)."""
        return max(self.idle_since, self.sandbox.channel.quiet_since if self.sandbox is not None else 0.0)

    def fits(self, profile: AuthorizedProfile) -> bool:
        """It may be leased for a call that wants this profile."""
        return self.usable and not self.outdated and self.profile == profile


@dataclass(slots=True, eq=False)
class Lease:
    """One call's claim on a sandbox.

    Arguments:
        arrived: orders the calls that wait.
        slot: the one that it has been granted.
        changes: its call may change files, or something else may that runs beside it.
        serves: for a process without a time-out; it does not keep the sandbox from being closed to make room.
        granted: set when it is granted a slot; made by the call that waits, for most are granted one at once.
    """

    key: SlotKey
    profile: AuthorizedProfile
    arrived: int
    changes: bool = True
    serves: bool = False
    slot: Slot | None = None
    granted: anyio.Event | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for one slot.

    Arguments:
        create: start the slot's sandbox.
        check: the slot's sandbox is a warm one: look whether it is in order, and make another one when it is not.
        retired: to be closed once `slot` is settled, for the successor holds the workspace by then.
        at_once: do not wait for the calls that still run in the retired one.
        evicted: to be closed, for `slot` has their place.
    """

    slot: Slot
    create: bool = False
    check: bool = False
    retired: Slot | None = None
    at_once: bool = False
    evicted: tuple[Slot, ...] = ()


def opened(slots: Iterable[Slot], principal: str) -> dict[TaskKey, list[Sandbox]]:
    """Return the principal's tasks with sandboxes that are in order, the newest task first."""
    found: dict[TaskKey, list[Sandbox]] = {}
    for slot in sorted(slots, key=lambda slot: slot.created, reverse=True):
        if slot.task.principal == principal and slot.holds_files and slot.sandbox is not None:
            found.setdefault(slot.task, []).append(slot.sandbox)
    return found


def placed(slots: Iterable[Slot], principal: str) -> frozenset[str]:
    """Return the names of the principal's tasks that have a sandbox, or are being given one."""
    return frozenset(slot.task.task for slot in slots if slot.task.principal == principal)
