"""Which sandboxes stand ready for the next task, and which of them a call may take: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import Lease, Slot, SlotState


def outdated_warm(slots: Collection[Slot], used: Mapping[str, AuthorizedProfile]) -> list[Slot]:
    """Ready ones of a profile that no call would want as it is.

    Arguments:
        used: the profiles that this server was asked for, by name, as the last call wanted each.
    """
    return [slot for slot in slots if slot.is_warm and used.get(slot.profile.profile.name) != slot.profile]


def missing_warm(
    slots: Collection[Slot], used: Mapping[str, AuthorizedProfile], bounds: Bounds
) -> AuthorizedProfile | None:
    """The profile of which one more is to be made now; None: there are enough, or something more urgent is being made.

    Only of profiles that this server has been asked for: twenty skills would be twenty containers for nobody.
    """
    if bounds.persistent or len(slots) >= bounds.max_sandboxes:
        return None
    if any(slot.state is SlotState.CREATING for slot in slots):
        return None
    for profile in used.values():
        # One that is kept for inspection would be kept without ever having been anybody's.
        if profile.profile.remove and sum(slot.is_warm and slot.profile == profile for slot in slots) < bounds.warm:
            return profile
    return None


def warm_for(slots: Collection[Slot], lease: Lease) -> Slot | None:
    """One for a task that has no files yet: another volume cannot be mounted into it any more."""
    if any(slot.task == lease.key[0] for slot in slots):
        return None
    fitting = [slot for slot in slots if slot.is_warm and slot.fits(lease.profile)]
    return min(fitting, key=lambda slot: slot.state is SlotState.CREATING, default=None)
