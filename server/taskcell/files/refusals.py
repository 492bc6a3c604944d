"""Why a file command refused, as its reply tells it, and the sentence for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from taskcell.model import WORKSPACE
from taskcell.text import one_line
from taskcell.tools.files import MAX_PICTURE, MAX_RESOURCE


class Reason(IntEnum):
    """Why a command refused, in its reply."""

    SYSTEM = 1
    FOLDER = 2
    KIND = 3
    SIZE = 4
    CHANGED = 5
    LOCKED = 6
    ABSENT = 7
    PLACES = 8
    OVERLAP = 9
    INPUT = 10
    PAST_END = 11
    TIME = 12


class Errno(IntEnum):
    """Linux's numbers, whatever system the server runs on."""

    EPERM = 1
    ENOENT = 2
    EACCES = 13
    EBUSY = 16
    ENOTDIR = 20
    ENOSPC = 28
    EROFS = 30
    ELOOP = 40
    EDQUOT = 122


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal as it came: `number` and `words` mean what the reason says; `places` are lines and their text."""

    why: int
    errno: int
    number: int
    words: str
    places: tuple[tuple[int, str], ...]

    @property
    def is_absent(self) -> bool:
        """There is no such file."""
        return self.why == Reason.SYSTEM and self.errno in (Errno.ENOENT, Errno.ENOTDIR, Errno.ELOOP)


_VERBS = {"read": "read", "fetch": "read", "write": "written", "edit": "changed", "list": "listed"}


def sentence(what: str, path: str, refused: Refused) -> str:
    """What happened and what to do next. `what` is the command's word, such as `read`."""
    number, words = refused.number, " ".join(refused.words[:200].split())
    near = f"Line {number} has it with other blanks: read" if number else "Read"
    sentences = {
        Reason.SYSTEM: _system(what, path, refused.errno, words),
        Reason.FOLDER: f"{path} is a folder; `list_files` shows what is in it.",
        Reason.KIND: f"{path} is {words}, not a file; use the terminal for it.",
        Reason.SIZE: _too_large(what, path, number),
        Reason.CHANGED: f"{path} was changed by something else meanwhile, and not by this call; read it, then edit it.",
        Reason.LOCKED: f"{path} is locked by another program and was left as it was; try again when that is done.",
        Reason.ABSENT: f"'old' is not in {path}, which was left as it was. {near} it there, and copy the text exactly.",
        Reason.PLACES: _places(path, number, refused.places),
        Reason.OVERLAP: f"The {number} places of 'old' in {path} overlap; change one after the other, with more text.",
        Reason.INPUT: f"The connection broke off; {path} was left as it was.",
        Reason.PAST_END: f"{path} has only {number} line{'' if number == 1 else 's'}; 'offset' must be at most that.",
        Reason.TIME: f"{path} takes too long to be read as far as that; use `sed -n` or `tail` in the terminal.",
    }
    return next(
        (text for reason, text in sentences.items() if reason == refused.why), f"{path} cannot be {_VERBS[what]}."
    )


def _system(what: str, path: str, errno: int, words: str) -> str:
    verb = _VERBS[what]
    kept = " It was left as it was." if what in ("write", "edit") else ""
    known = {
        Errno.ENOENT: f"There is no {path}; `list_files` shows what is there.",
        Errno.ENOTDIR: f"{path} leads through something that is no folder; `list_files` shows what is there.",
        Errno.EACCES: f"{path} cannot be {verb}: the sandbox's user may not.{kept}",
        Errno.EPERM: f"{path} cannot be {verb}: the sandbox's user may not.{kept}",
        Errno.EROFS: f"{path} is on a read-only file system; write below {WORKSPACE} or /tmp.",
        Errno.ENOSPC: f"There is no space left for {path}; it was left as it was. Delete what is not needed.",
        Errno.EDQUOT: f"There is no space left for {path}; it was left as it was. Delete what is not needed.",
        Errno.ELOOP: f"The links of {path} lead in a circle; name the file itself.",
        Errno.EBUSY: f"{path} is a mount of its own and cannot be replaced; write into it from the terminal.",
    }
    return next((text for number, text in known.items() if number == errno), f"{path} cannot be {verb}: {words}.{kept}")


def _too_large(what: str, path: str, size: int) -> str:
    if what == "read":
        return (
            f"{path} is a picture of {size} bytes, and at most {MAX_PICTURE} can be shown; make a smaller one, as with "
            "the image skill or in the terminal, and read that."
        )
    if what == "fetch":
        return f"{path} is larger than {MAX_RESOURCE} bytes; read it by `read_file` with 'offset', or in the terminal."
    if what == "edit":
        return (
            f"{path} is, or would be, too large to be edited as a whole ({size} bytes); use `sed -i` in the terminal."
        )
    return f"{path} cannot be {_VERBS[what]}: it is too large."


def _places(path: str, count: int, places: tuple[tuple[int, str], ...]) -> str:
    shown = "; ".join(f"line {line}: {one_line(text.strip())}" for line, text in places)
    more = f"; and {count - len(places)} more" if count > len(places) else ""
    times = "once" if count == 1 else f"{count} times"
    return (
        f"'old' is in {path} {times}, and nothing was changed. Give more of the lines around the place that is meant, "
        f"or count={count} to replace all: {shown}{more}."
    )
