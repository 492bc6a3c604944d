"""The pool's state and its decisions: synchronous, without I/O, so that no decision can be cut in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

import anyio

from taskcell.errors import TaskcellError
from taskcell.model import TaskKey
from taskcell.policy import AuthorizedProfile
from taskcell.sandbox import Sandbox

SlotKey = tuple[TaskKey, str]


class SlotState(Enum):
    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Slot:
    """A place in the pool: (task, profile), and the sandbox that is or will be in it.

    Arguments:
        workspace: name of the volume with the task's files.
        settled: set when the creation has succeeded or failed; `gone`: when the container was removed.
    """

    key: SlotKey
    profile: AuthorizedProfile
    workspace: str
    created: float
    state: SlotState = SlotState.CREATING
    sandbox: Sandbox | None = None
    error: TaskcellError | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)
    leases: int = 0
    idle_since: float = 0.0
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        task, profile = self.key
        return f"<Slot {task.digest}/{profile} {self.state.value}, {self.leases} leases>"

    @property
    def usable(self) -> bool:
        """It may be leased: it is being made, or its sandbox is in order."""
        if self.state is SlotState.CREATING:
            return True
        return self.state is SlotState.READY and self.sandbox is not None and self.sandbox.usable


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. `retired` is to be closed once `slot` is settled: its successor holds the workspace by then."""

    slot: Slot
    create: bool = False
    retired: Slot | None = None


class Slots:
    """Every slot of the pool; at most one for a key can be leased."""

    def __init__(self) -> None:
        self._slots: dict[SlotKey, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def lease(self, key: SlotKey, profile: AuthorizedProfile, workspace: str, now: float) -> Decision:
        """Count a lease on the key's slot; make a new slot where there is none that can be used."""
        current = self._slots.get(key)
        if current is not None and current.usable and current.profile == profile:
            current.leases += 1
            return Decision(current)
        decision = self._succeed(key, profile, workspace, current, now)
        decision.slot.leases += 1
        return decision

    def release(self, slot: Slot, now: float) -> Decision | None:
        """Take a lease back. A sandbox that must not be used again is replaced at once, not at the next call."""
        slot.leases -= 1
        slot.idle_since = now
        doomed = slot.sandbox is not None and slot.sandbox.doomed is not None
        if self._slots.get(slot.key) is slot and slot.state is SlotState.READY and doomed:
            return self._succeed(slot.key, slot.profile, slot.workspace, slot, now)
        return None

    def replace(self, chosen: Callable[[Slot], bool], now: float) -> list[Decision]:
        """A successor for each chosen slot that is not already being made."""
        old = [slot for slot in self if chosen(slot) and slot.state is SlotState.READY]
        return [self._succeed(slot.key, slot.profile, slot.workspace, slot, now, explain=False) for slot in old]

    def _succeed(
        self,
        key: SlotKey,
        profile: AuthorizedProfile,
        workspace: str,
        old: Slot | None,
        now: float,
        *,
        explain: bool = True,
    ) -> Decision:
        slot = Slot(key, profile, workspace, created=now, idle_since=now)
        if old is not None:
            old.state = SlotState.RETIRED
            if explain and old.sandbox is not None:
                slot.notes.append(self._why_replaced(old, old.sandbox))
        self._slots[key] = slot
        return Decision(slot, create=True, retired=old)

    def _why_replaced(self, old: Slot, sandbox: Sandbox) -> str:
        if sandbox.usable:
            return "The sandbox was replaced because its configuration changed; the workspace is the same."
        reason = sandbox.doomed or sandbox.channel.lost_reason or "it ended"
        held = sandbox.channel.alive or any(
            other.key[0] == old.key[0] and other.usable and other.sandbox is not None for other in self
        )
        files = (
            "the files in the workspace are still there" if held else "the files that were in the workspace are lost"
        )
        return f"The task's sandbox had died ({reason}) and was replaced by a fresh one; {files}."

    def ready(self, slot: Slot, sandbox: Sandbox) -> None:
        slot.sandbox = sandbox
        if slot.state is SlotState.CREATING:
            slot.state = SlotState.READY
        slot.settled.set()

    def failed(self, slot: Slot, error: TaskcellError) -> None:
        """Nothing is kept of a failed creation: the next lease tries afresh."""
        slot.error, slot.state = error, SlotState.FAILED
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
        slot.settled.set()

    def take(self, chosen: Callable[[Slot], bool]) -> list[Slot]:
        """Take slots out, to be closed: from now on a lease makes a new one."""
        taken = [slot for slot in self if chosen(slot)]
        for slot in taken:
            del self._slots[slot.key]
            slot.state = SlotState.RETIRED
        return taken

    def closed(self, slot: Slot) -> None:
        slot.state = SlotState.CLOSED
        slot.gone.set()

    def take_notes(self, slot: Slot) -> list[str]:
        """Notes for the next answer; each is told once."""
        notes, slot.notes = slot.notes, []
        return notes
