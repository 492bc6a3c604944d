"""A variable of commands whose value nobody is shown: where it is kept, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from taskcell.regular_file import open_regular

#: Bytes. A shorter value could not be masked without masking other text that is like it; the most is more than a
#: private key has, and little enough to look for in all output.
MIN_SECRET, MAX_SECRET = 8, 16 * 1024


class SecretUnreadable(ValueError):
    """A secret cannot be used; the message says why, as the end of a sentence, without its value."""


class Hidden:
    """A value that no repr, comparison or copy into text shows."""

    __slots__ = ("value",)

    def __init__(self, value: str = "") -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Hidden()"

    def __deepcopy__(self, memo: object) -> Hidden:
        return self


@dataclass(frozen=True, slots=True)
class Secret:
    """A variable of commands.

    Arguments:
        name: of the variable.
        file: absolute path of what holds its value; empty: a variable of the server has it.
        held: what that variable held when the configuration was read.
    """

    name: str
    file: str = ""
    variable: str = ""
    held: Hidden = field(default_factory=Hidden, repr=False, compare=False)

    def read(self) -> str:
        """Read its value, now: a file may have been replaced. Blocking, for one small file. Raises SecretUnreadable."""
        return checked(_content(Path(self.file)) if self.file else self.held.value)


def checked(value: str) -> str:
    """Return a secret's value as it is. Raises SecretUnreadable."""
    size = len(value.encode("utf-8", "surrogateescape"))
    if size < MIN_SECRET:
        raise SecretUnreadable(f"has fewer than {MIN_SECRET} bytes, too few to be masked in what commands print")
    if size > MAX_SECRET:
        raise SecretUnreadable(f"has more than {MAX_SECRET} bytes, the most that a secret may have")
    if "\0" in value:
        raise SecretUnreadable("holds a NUL character, which no variable can")
    return value


def _content(path: Path) -> str:
    """The text of a file, without a newline at its end. A link is followed: secrets are often handed out as links."""
    try:
        descriptor = open_regular(Path(os.path.realpath(path)), os.O_RDONLY)
    except OSError as error:
        raise SecretUnreadable(f"cannot be read from {path}: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        data = file.read(MAX_SECRET + 3)
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretUnreadable(f"is not UTF-8 text in {path}; encode it, as with base64") from None
