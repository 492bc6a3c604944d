"""The name of what a task's terminal is opened with: a table of the configuration, and maybe another image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

#: What `[terminal]` is called where an environment is named.
DEFAULT_ENVIRONMENT = "default"
#: The profile of `[terminal]`. Those of environments begin with it and a dot, which no skill's name has.
TERMINAL = "terminal"


@dataclass(frozen=True, slots=True)
class Environment:
    """What a task is opened with.

    Arguments:
        name: of a table `[environments.NAME]`; empty for `[terminal]`.
        image: the image that is used instead of the table's; empty for the table's.
    """

    name: str = ""
    image: str = ""

    @property
    def is_default(self) -> bool:
        return not (self.name or self.image)

    @property
    def profile(self) -> str:
        """The name of its profile, which is a part of containers' names: `terminal.NAME`, or `terminal.NAME.DIGEST`."""
        words = [TERMINAL, *filter(None, [self.name or (self.image and DEFAULT_ENVIRONMENT)])]
        digest = [hashlib.sha256(self.image.encode()).hexdigest()[:12]] if self.image else []
        return ".".join([*words, *digest])

    @classmethod
    def of_profile(cls, name: str) -> Environment | None:
        """Return the environment that a profile's name says; None for a skill's, and where it has an image of its own.

        The image itself is not in the name.
        """
        first, *rest = name.split(".")
        if first != TERMINAL or len(rest) > 1:
            return None
        return cls(rest[0] if rest else "")

    def __str__(self) -> str:
        """Words for a sentence, such as `the environment 'swe' with the image x:1`."""
        named = f"the environment '{self.name}'" if self.name else "the default environment"
        return f"{named} with the image {self.image}" if self.image else named


#: That of `[terminal]`.
OF_TERMINAL = Environment()


def has_own_image(profile: str) -> bool:
    """Whether a profile's name is that of an environment with an image that one task was opened with."""
    return profile.count(".") > 1
