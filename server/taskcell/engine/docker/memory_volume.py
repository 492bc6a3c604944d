"""The volume in memory that a task's files are in, and whom it belongs to. Pure."""

from __future__ import annotations

from taskcell.model import Profile


def workspace_options(size: int, owner: tuple[int, int]) -> dict[str, str]:
    """Of a volume in memory of `size` bytes that belongs to a user and a group of the engine's machine."""
    uid, gid = owner
    return {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},uid={uid},gid={gid},mode=0755,nosuid,nodev"}


def owner_of(profile: Profile) -> tuple[int, int]:
    """The uid and gid, in the container, of whom commands run as; 1000 where the profile has names, as of the image."""
    user, _, group = profile.user.partition(":")
    uid = int(user) if user.isdigit() else 1000
    return uid, int(group) if group.isdigit() else uid
