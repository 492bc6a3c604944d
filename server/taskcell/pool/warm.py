"""Which sandboxes stand ready for the next task, and which of them a call may take. All of it is pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from taskcell.environment import has_own_image
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import Bounds
from taskcell.pool.slot import Lease, Slot, SlotState


def note_used(used: dict[str, AuthorizedProfile], profile: AuthorizedProfile, principal: str) -> None:
    """A call has asked for a profile. One with an image that its task has named is asked for by no other task.

    One with named volumes, which are each principal's own, stands ready for the person alone.
    """
    if not has_own_image(profile.name) and _may_have(principal, profile):
        used[profile.name] = profile


def _may_have(principal: str, profile: AuthorizedProfile) -> bool:
    """Whether a sandbox that was made for nobody's task may become one of this principal's."""
    return principal == LOCAL_PRINCIPAL or not any(mount.volume for mount in profile.mounts)


def try_last(used: dict[str, AuthorizedProfile], profile: AuthorizedProfile) -> None:
    """A sandbox of a profile could not be made; those of others are not to wait until one can."""
    if profile.name in used:
        used[profile.name] = used.pop(profile.name)


def outdated_warm(slots: Collection[Slot], used: Mapping[str, AuthorizedProfile]) -> list[Slot]:
    """The warm slots whose profile has changed, so that no call can take them.

    Arguments:
        used: the profiles that calls have asked for, by name, as the last call asked for each.
    """
    return [slot for slot in slots if slot.is_warm and used.get(slot.profile.name) != slot.profile]


def missing_warm(
    slots: Collection[Slot], used: Mapping[str, AuthorizedProfile], bounds: Bounds
) -> AuthorizedProfile | None:
    """The profile to make one more warm sandbox for; None when there are enough, or another sandbox is being made.

    Only for profiles that calls have asked for: with twenty skills, nobody would use most of twenty containers.
    """
    if (bounds.persistent and not bounds.is_shared) or len(slots) >= bounds.max_sandboxes:
        return None
    if any(slot.state is SlotState.CREATING for slot in slots):
        return None
    for profile in used.values():
        # One that is kept for inspection would be kept without ever having had a task.
        if profile.remove and sum(slot.is_warm and slot.profile == profile for slot in slots) < bounds.warm:
            return profile
    return None


def warm_for(slots: Collection[Slot], lease: Lease) -> Slot | None:
    """A warm slot for a task that has no files yet: no other volume can be mounted into it any more."""
    if any(slot.task == lease.key[0] for slot in slots) or not _may_have(lease.key[0].principal, lease.profile):
        return None
    fitting = [slot for slot in slots if slot.is_warm and slot.fits(lease.profile)]
    return min(fitting, key=lambda slot: slot.state is SlotState.CREATING, default=None)
