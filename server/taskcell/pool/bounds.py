"""What happens when the pool is full: which idle sandbox is evicted, and the error for a call that times out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from taskcell.model import LOCAL_PRINCIPAL, TaskKey
from taskcell.pool.slot import Slot
from taskcell.text import shown

#: Names of tasks in an error at most; a model does nothing with more.
MAX_NAMES = 8
#: Seconds after a call in which what lives in its sandbox may be about to end: the end of a command's last process is
#: heard of a moment after its answer. Upkeep looks as often whether there is room now.
SETTLING = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many sandboxes there may be.

    Arguments:
        max_sandboxes: in all.
        max_per_principal: for the tasks of one principal.
        max_local: for the person's own tasks; None: as for any other principal.
        warm: ready for the next task, of each profile.
        persistent: files are on disk: closing a sandbox loses none, and a sandbox made beforehand cannot have them
            unless all tasks have the same ones (`is_shared`).
    """

    max_sandboxes: int = 32
    max_per_principal: int = 16
    max_local: int | None = None
    warm: int = 0
    persistent: bool = False
    is_shared: bool = False

    def most_of(self, principal: str) -> int:
        """How many sandboxes a principal may have."""
        if principal == LOCAL_PRINCIPAL and self.max_local is not None:
            return self.max_local
        return self.max_per_principal


def may_go(slot: Slot) -> bool:
    """Whether a sandbox might be closed to make room for some task; `make_room` chooses for a certain one."""
    return slot.is_warm or not slot.is_busy or slot.is_left_running


def make_room(
    slots: Collection[Slot], bounds: Bounds, task: TaskKey, now: float, *, needs_more: bool
) -> list[Slot] | None:
    """The slots to close so that the task may have one more; None when there are not enough.

    They are warm or idle ones. Where there is none, it is one in which processes run that no call waits for and no
    time-out ends: they may run for ever, and nobody else would get a place.

    Arguments:
        needs_more: the task needs a new sandbox; a warm one that it takes is counted already.
    """
    own = [slot for slot in slots if slot.task.principal == task.principal]
    chosen: list[Slot] = []
    if len(own) >= bounds.most_of(task.principal):
        victim = _least_recently_used(own, bounds, task) or _left_running(own, own, task, now)
        if victim is None:
            return None
        chosen.append(victim)
    if needs_more and len(slots) - len(chosen) >= bounds.max_sandboxes:
        others = [slot for slot in slots if slot not in chosen]
        warm = next((slot for slot in others if slot.is_warm), None)
        victim = warm or _least_recently_used(others, bounds, task) or _left_running(others, slots, task, now)
        if victim is None:
            return None
        chosen.append(victim)
    return chosen


def _least_recently_used(among: Collection[Slot], bounds: Bounds, task: TaskKey) -> Slot | None:
    idle = [slot for slot in among if not slot.is_busy and not slot.is_warm]
    # A task keeps its files: its last sandbox is not closed to make room for another one of its own.
    idle = [slot for slot in idle if slot.task != task or bounds.persistent or _has_another(among, slot)]
    return min(idle, key=lambda slot: (slot.task == task, slot.quiet_since), default=None)


def _left_running(among: Collection[Slot], slots: Iterable[Slot], task: TaskKey, now: float) -> Slot | None:
    """The slot with running servers that was called last the longest ago, of the principal that holds the most.

    No principal loses a server to one that holds as many sandboxes, and no task to itself. Where a sandbox may be idle
    in a moment, that is waited for.
    """
    if any(slot.is_left_running and not slot.servers and now - slot.idle_since < SETTLING for slot in among):
        return None
    held = Counter(slot.task.principal for slot in slots)
    mine = held[task.principal]
    chosen = (
        slot
        for slot in among
        if slot.is_left_running
        and slot.task != task
        and (slot.task.principal == task.principal or held[slot.task.principal] > mine + 1)
    )
    return min(chosen, key=lambda slot: (-held[slot.task.principal], slot.idle_since), default=None)


def _has_another(among: Iterable[Slot], slot: Slot) -> bool:
    return any(other is not slot and other.task == slot.task and other.holds_files for other in among)


def who_holds(slots: Collection[Slot], bounds: Bounds, principal: str, waited: float) -> str:
    """Why a call got no sandbox though it waited so many seconds. Tasks of other principals are counted, not named."""
    own = [slot for slot in slots if slot.task.principal == principal]
    names = sorted({slot.task.task for slot in own})
    named = ", ".join(map(shown, names[:MAX_NAMES])) + (" and others" if len(names) > MAX_NAMES else "")
    bound, most = f"max_sandboxes ({bounds.max_sandboxes})", bounds.most_of(principal)
    if len(own) >= most and most < bounds.max_sandboxes:
        bound = f"max_per_principal ({most})"
    return (
        f"No sandbox was free within {waited:g} s: pool.{bound} is reached and all are in "
        f"use, {len(own)} by your tasks ({named or 'none'}) and {len(slots) - len(own)} by others. Try again "
        "later, or end what runs there (`sandbox` with action 'close')."
    )
