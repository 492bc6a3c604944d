"""The refusals of `supervisor file` commands, and the sentence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from taskcell.errors import ErrorCode
from taskcell.files.limits import MAX_PICTURE, MAX_RESOURCE
from taskcell.model import WORKSPACE
from taskcell.text import PATH_SHOWN, shown


class RefusalReason(IntEnum):
    """Why a command refused, as numbered in its reply."""

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
    """Linux's error numbers; those of the server's own system may differ."""

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
    """A refusal as the reply has it.

    Arguments:
        why: a RefusalReason, or a number that is none.
        number, words: their meaning depends on the reason.
        places: line numbers with the text of their lines.
    """

    why: int
    errno: int
    number: int
    words: str
    places: tuple[tuple[int, str], ...]

    @property
    def code(self) -> ErrorCode:
        """What kind of refusal it is; of a number that is none, an internal fault."""
        if self.why == RefusalReason.SYSTEM:
            return _CODE_OF_ERRNO.get(self.errno, ErrorCode.INTERNAL)
        return _CODES.get(self.why, ErrorCode.INTERNAL)


_CODES: Mapping[int, ErrorCode] = {
    RefusalReason.FOLDER: ErrorCode.IS_A_DIRECTORY,
    RefusalReason.KIND: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.SIZE: ErrorCode.TOO_LARGE,
    RefusalReason.CHANGED: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.LOCKED: ErrorCode.PERMISSION_DENIED,
    RefusalReason.ABSENT: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.PLACES: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.OVERLAP: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.INPUT: ErrorCode.LOST,
    RefusalReason.PAST_END: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.TIME: ErrorCode.TIMEOUT,
}
_CODE_OF_ERRNO: Mapping[int, ErrorCode] = {
    **dict.fromkeys((Errno.ENOENT, Errno.ENOTDIR, Errno.ELOOP), ErrorCode.NOT_FOUND),
    **dict.fromkeys((Errno.EPERM, Errno.EACCES, Errno.EROFS, Errno.EBUSY), ErrorCode.PERMISSION_DENIED),
    **dict.fromkeys((Errno.ENOSPC, Errno.EDQUOT), ErrorCode.NO_CAPACITY),
}


#: Characters of a sandbox's own words in a sentence: of the system's message, or of a line of a file.
MAX_WORDS = 200
_VERBS = {"read": "read", "fetch": "read", "write": "written", "edit": "changed", "list": "listed"}


def sentence(what: str, path: str, refused: Refused) -> str:
    """Say what happened and what to do next. `what` is the file command, such as `read`."""
    number, path = refused.number, shown(path, PATH_SHOWN)
    words = shown(" ".join(refused.words.split()), MAX_WORDS)
    near = f"Line {number} differs from it in blanks only: read" if number else "Read"
    sentences = {
        RefusalReason.SYSTEM: _system(what, path, refused.errno, words),
        RefusalReason.FOLDER: f"{path} is a folder; `list_files` shows what is in it.",
        RefusalReason.KIND: f"{path} is not a file but {words}; use the terminal for it.",
        RefusalReason.SIZE: _too_large(what, path, number),
        RefusalReason.CHANGED: f"Something else changed {path} meanwhile; this call did not. Read it, then edit it.",
        RefusalReason.LOCKED: f"Another program has locked {path}; this call did not change it. Try again later.",
        RefusalReason.ABSENT: f"'old' is not in {path}; nothing was changed. {near} it there and copy it exactly.",
        RefusalReason.PLACES: _places(path, number, refused.places),
        RefusalReason.OVERLAP: f"The {number} places of 'old' in {path} overlap; replace one at a time.",
        RefusalReason.INPUT: f"The connection broke; {path} was not changed.",
        RefusalReason.PAST_END: f"'offset' is too large: {path} has only {number} line{'' if number == 1 else 's'}.",
        RefusalReason.TIME: f"Reading {path} up to that line takes too long; use `sed -n` or `tail` in the terminal.",
    }
    return next(
        (text for reason, text in sentences.items() if reason == refused.why), f"{path} cannot be {_VERBS[what]}."
    )


def _system(what: str, path: str, errno: int, words: str) -> str:
    verb = _VERBS[what]
    kept = " It was not changed." if what in ("write", "edit") else ""
    known = {
        Errno.ENOENT: f"There is no {path}; `list_files` shows what is there.",
        Errno.ENOTDIR: f"A part of {path} is not a folder; `list_files` shows what is there.",
        Errno.EACCES: f"{path} cannot be {verb}: the sandbox's user has no permission.{kept}",
        Errno.EPERM: f"{path} cannot be {verb}: the sandbox's user has no permission.{kept}",
        Errno.EROFS: f"{path} is on a read-only file system; write below {WORKSPACE} or /tmp.",
        Errno.ENOSPC: f"There is no space left for {path}; it was not changed. Delete files that are not needed.",
        Errno.EDQUOT: f"There is no space left for {path}; it was not changed. Delete files that are not needed.",
        Errno.ELOOP: f"The links of {path} form a loop; name the file itself.",
        Errno.EBUSY: f"{path} is a mount point and cannot be replaced; write into it from the terminal.",
    }
    return next((text for number, text in known.items() if number == errno), f"{path} cannot be {verb}: {words}.{kept}")


def _too_large(what: str, path: str, size: int) -> str:
    if what == "read":
        return (
            f"{path} is a picture of {size} bytes, and at most {MAX_PICTURE} can be shown; make a smaller one with the "
            "image skill or in the terminal, and read that."
        )
    if what == "fetch":
        return f"{path} is larger than {MAX_RESOURCE} bytes; read it by `read_file` with 'offset', or in the terminal."
    if what == "edit":
        return f"{path} is or would become too large for `edit_file` ({size} bytes); use `sed -i` in the terminal."
    return f"{path} cannot be {_VERBS[what]}: it is too large."


def _places(path: str, count: int, places: tuple[tuple[int, str], ...]) -> str:
    found = "; ".join(f"line {line}: {shown(text.strip(), MAX_WORDS)}" for line, text in places)
    more = f"; and {count - len(places)} more" if count > len(places) else ""
    times = "once" if count == 1 else f"{count} times"
    return (
        f"'old' is in {path} {times}; nothing was changed. Give more of the lines around the place that you mean, or "
        f"count={count} to replace all: {found}{more}."
    )
