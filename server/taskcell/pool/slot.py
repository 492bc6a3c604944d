"""One place of the pool, and what a decision about places says: plain state."""

from __future__ import annotations

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

#: Whose the ready sandboxes are that no task has yet. No principal has an empty name.
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

    A sandbox for one call has a key of its own while that call has it, so that no other is given it; so has a warm one
    until a task takes it.

    Arguments:
        settled: set when the creation has succeeded or failed; `idle`: when the last lease of a retired slot ended.
        replaces: the slot that this one is to succeed, until it has.
        inherited: the sandbox of an earlier server that is to be taken up, until it has been.
        outdated: its container was made with another profile than `profile`, or that is not known.
        nonce: what the token of its sandbox was derived from.
        fingerprint: of its profile, for other servers; empty until it is needed.
        ended: how the task's last sandbox of this profile ended; empty where there was none, or it was meant to.
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
    outdated: bool = False
    nonce: str = ""
    fingerprint: str = ""
    leases: int = 0
    idle_since: float = 0.0
    ended: str = ""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        task, profile = self.key
        return f"<Slot {task.digest}/{profile} {self.state.value}, {self.leases} leases>"

    @property
    def task(self) -> TaskKey:
        return self.key[0]

    @property
    def shared_key(self) -> SlotKey:
        """Where calls look for it: the key of every slot but one that a single call has."""
        return self.key[0], self.profile.profile.name

    @property
    def is_warm(self) -> bool:
        """No task has it yet."""
        return self.key[0] is NOBODY

    @property
    def is_for_one_call(self) -> bool:
        return self.profile.profile.reuse is Reuse.CALL

    @property
    def holds_files(self) -> bool:
        """Its container runs, and with it the workspace lives."""
        return self.sandbox is not None and self.sandbox.state is SandboxState.READY and self.sandbox.channel.alive

    @property
    def usable(self) -> bool:
        """It may be leased: it is being made, or its sandbox is in order."""
        if self.state is SlotState.CREATING:
            return True
        return self.state is SlotState.READY and self.sandbox is not None and self.sandbox.usable

    @property
    def is_busy(self) -> bool:
        """A call has it, or one of its processes lives, or it is not there yet: it must not be closed."""
        if self.leases or self.sandbox is None:
            return True
        return bool(self.sandbox.channel.living) and self.sandbox.usable

    @property
    def quiet_since(self) -> float:
        """When its last call or process ended (monotonic)."""
        return max(self.idle_since, self.sandbox.channel.quiet_since if self.sandbox is not None else 0.0)

    def fits(self, profile: AuthorizedProfile) -> bool:
        """It may be leased for a call that wants this profile."""
        return self.usable and not self.outdated and self.profile == profile


@dataclass(slots=True, eq=False)
class Lease:
    """One call's claim on a sandbox: `slot` is the one it has been granted. `arrived` orders those that wait."""

    key: SlotKey
    profile: AuthorizedProfile
    arrived: int
    slot: Slot | None = None
    #: Made by who waits: the common call is granted its slot at once.
    granted: anyio.Event | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Arguments:
        create: start the slot's sandbox.
        check: the slot's sandbox is a warm one: look whether it is in order, and make another where it is not.
        retired: to be closed once `slot` is settled, for the successor holds the workspace by then.
        at_once: not to wait for the calls that still run in the retired one.
        evicted: to be closed, for `slot` has its place.
    """

    slot: Slot
    create: bool = False
    check: bool = False
    retired: Slot | None = None
    at_once: bool = False
    evicted: tuple[Slot, ...] = ()
