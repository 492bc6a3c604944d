"""Whom a program may run a task's command as, beside the user of the task's profile."""

from __future__ import annotations

from fnmatch import fnmatchcase

from taskcell.config.policy_tables import PolicySettings
from taskcell.model import Profile
from taskcell.text import shown

#: By name and number. A name of the image that means root is found where the command starts.
_ROOT = ("root", "0")


def why_not_as(user: str, profile: Profile, policy: PolicySettings) -> str:
    """Return why a command may not run as a user; an empty text if it may. A profile with sudo has its own way.

    Arguments:
        user: a name or a number of the image, without a group.
    """
    own = profile.user or "of the image"
    if user in _ROOT:
        return f"No command runs as {user}; a profile with `sudo` lets one become root with six capabilities at most."
    if not any(fnmatchcase(user, pattern) for pattern in policy.task_users):
        return (
            f"Commands of this task run as the user {own}, and not as {shown(user, 40)}, whom policy.task_users does "
            "not name; leave the user out, or ask the operator to add it."
        )
    if profile.folder is not None or any(mount.source for mount in profile.mounts):
        return f"Commands that see a folder of the host run as the user {own} alone; leave the user out."
    return ""
