"""The volumes that an image declares: folders without a bound on disk, if nothing else is mounted there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from taskcell.errors import EngineError
from taskcell.model import MIB, Profile
from taskcell.text import shown

#: Each becomes a file system in memory of at most this size.
VOLUME_SIZE = 64 * MIB
#: A container cannot start with something over these.
_WHOLE = frozenset({"/", "/dev"})
#: Nor with something over or below these; in the first it would also reach into the volume that all sandboxes mount,
#: and over the last it would hide the limits that a sandbox is looked at for.
_WITH_ALL_BELOW = ("/.taskcell", "/proc", "/sys")


def declared(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Absolute paths, from the engine's inspection of the image."""
    return tuple(image["Config"].get("Volumes") or ())


def check(image: Mapping[str, Any], reference: str) -> None:
    """Raises EngineError where a volume is what every sandbox needs for itself.

    Arguments:
        reference: what the profile calls the image.
    """
    for path in declared(image):
        plain = posixpath.normpath(path)
        if plain in _WHOLE or any(f"{plain}/".startswith(f"{taken}/") for taken in _WITH_ALL_BELOW):
            raise EngineError(
                f"The image {shown(reference)} declares a volume at {shown(path)}, which every sandbox needs for "
                "itself; build it without that VOLUME, or use another image."
            )


def size_of_each(profile: Profile, count: int) -> int:
    """Bytes: together they leave half of the memory that the profile's own file systems leave."""
    if profile.memory is None or not count:
        return VOLUME_SIZE
    room = profile.memory - profile.kept_in_memory
    return max(1, min(VOLUME_SIZE, room // (2 * count)))
