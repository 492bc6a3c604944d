"""The refusals of `supervisor file` commands, and the sentence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from taskcell.errors import ErrorCode
from taskcell.files.limits import MAX_DECODED, MAX_RESOURCE
from taskcell.model import WORKSPACE
from taskcell.text import PATH_SHOWN, shown
from taskcell.units import format_size


class RefusalReason(IntEnum):
    """Why a command refused, as numbered in its reply."""

    SYSTEM = 1
    FOLDER = 2
    KIND = 3
    SIZE = 4
    CHANGED = 5
    LOCKED = 6
    INPUT = 10
    PAST_END = 11
    TIME = 12
    TORN = 13


class Errno(IntEnum):
    """Linux's error numbers; those of the server's own system may differ."""

    EPERM = 1
    ENOENT = 2
    EACCES = 13
    EBUSY = 16
    ENOTDIR = 20
    ENOSPC = 28
    EROFS = 30
    ENAMETOOLONG = 36
    ELOOP = 40
    EDQUOT = 122


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal as the reply has it.

    Arguments:
        why: a RefusalReason, or a number that is none.
        number, words: their meaning depends on the reason.
    """

    why: int
    errno: int
    number: int
    words: str

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
    RefusalReason.INPUT: ErrorCode.LOST,
    RefusalReason.PAST_END: ErrorCode.INVALID_ARGUMENT,
    RefusalReason.TIME: ErrorCode.TIMEOUT,
    RefusalReason.TORN: ErrorCode.NO_CAPACITY,
}
_CODE_OF_ERRNO: Mapping[int, ErrorCode] = {
    **dict.fromkeys((Errno.ENOENT, Errno.ENOTDIR, Errno.ELOOP), ErrorCode.NOT_FOUND),
    **dict.fromkeys((Errno.EPERM, Errno.EACCES, Errno.EROFS, Errno.EBUSY), ErrorCode.PERMISSION_DENIED),
    Errno.ENAMETOOLONG: ErrorCode.INVALID_ARGUMENT,
    **dict.fromkeys((Errno.ENOSPC, Errno.EDQUOT), ErrorCode.NO_CAPACITY),
}


#: Characters of a sandbox's own words in a sentence: of the system's message, or of a line of a file.
MAX_WORDS = 200
_VERBS = {"read": "read", "fetch": "read", "text": "read", "write": "written", "list": "listed"}


def sentence(what: str, path: str, refused: Refused) -> str:
    """Say what happened and what to do next. `what` is the file command, such as `read`."""
    number, path = refused.number, shown(path, PATH_SHOWN)
    words = shown(" ".join(refused.words.split()), MAX_WORDS)
    sentences = {
        RefusalReason.SYSTEM: _system(what, path, refused.errno, words),
        RefusalReason.FOLDER: f"{path} is a folder; `list_files` shows what is in it.",
        RefusalReason.KIND: f"{path} is not a file but {_kind(refused.words)}; use the terminal for it.",
        RefusalReason.SIZE: _too_large(what, path, number),
        RefusalReason.CHANGED: f"Something else changed {path} meanwhile; this call did not. Read it, then try again.",
        RefusalReason.LOCKED: f"Another program has locked {path}; this call did not change it. Try again later.",
        RefusalReason.INPUT: f"The connection broke; {path} was not changed.",
        RefusalReason.PAST_END: f"'offset' is too large: {path} has only {number} line{'' if number == 1 else 's'}.",
        RefusalReason.TORN: f"Writing {path} in place broke off; it may hold parts of both contents. Write it again.",
        RefusalReason.TIME: f"Reading {path} up to that line takes too long; use `sed -n` or `tail` in the terminal.",
    }
    return next(
        (text for reason, text in sentences.items() if reason == refused.why), f"{path} cannot be {_VERBS[what]}."
    )


def _kind(words: str) -> str:
    return words if words in ("a FIFO", "a socket", "a device") else "something else"


def _system(what: str, path: str, errno: int, words: str) -> str:
    verb = _VERBS[what]
    kept = " It was not changed." if what == "write" else ""
    known = {
        Errno.ENOENT: f"There is no {path}; `list_files` shows what is there.",
        Errno.ENOTDIR: f"A part of {path} is not a folder; `list_files` shows what is there.",
        Errno.EACCES: f"{path} cannot be {verb}: the sandbox's user has no permission.{kept}",
        Errno.EPERM: f"{path} cannot be {verb}: the sandbox's user has no permission.{kept}",
        Errno.EROFS: f"{path} is on a read-only file system; write below {_writable(path)}.",
        Errno.ENOSPC: f"There is no space left for {path}; it was not changed. Delete files that are not needed.",
        Errno.EDQUOT: f"There is no space left for {path}; it was not changed. Delete files that are not needed.",
        Errno.ENAMETOOLONG: f"A part of {path} is too long: a name has at most 255 bytes; use a shorter one.",
        Errno.ELOOP: f"The links of {path} form a loop; name the file itself.",
        Errno.EBUSY: f"{path} is a mount point and cannot be replaced; write into it from the terminal.",
    }
    return next((text for number, text in known.items() if number == errno), f"{path} cannot be {verb}: {words}.{kept}")


def _writable(path: str) -> str:
    """Name the workspace as a place to write to, unless it is what was found to be read-only."""
    return "/tmp" if f"{WORKSPACE}/" in path else f"{WORKSPACE} or /tmp"  # noqa: S108 - paths in the container


def _too_large(what: str, path: str, size: int) -> str:
    if what == "fetch":
        return f"{path} is larger than {MAX_RESOURCE} bytes; read it by `read_file` with 'offset', or in the terminal."
    if what == "text":
        return (
            f"{path} is too large for this ({size} bytes; the limit is {format_size(MAX_DECODED)}); use programs in "
            "the terminal, such as `sed`, `cut` and `iconv`."
        )
    return f"{path} cannot be {_VERBS[what]}: it is too large."
