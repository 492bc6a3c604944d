"""Turns the arguments of the file tools into paths, patterns and bytes."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from taskcell.errors import BadArgument
from taskcell.files.limits import MAX_PATH
from taskcell.files.store import Target
from taskcell.model import WORKSPACE, Command
from taskcell.schema.arguments import encoded
from taskcell.tools.binding import MAX_STDIN, from_home

#: More lines than any file has.
MAX_LINE_NUMBER = 10**15
#: The supervisor's limits: patterns of one command, and parts of one pattern.
MAX_PATTERNS = 32
MAX_PARTS = 62

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def absolute(name: str, path: str) -> str:
    """Return the one spelling of a path that policy rules judge and answers show. Raises BadArgument.

    `..` is resolved by names, before any link is followed, so that the path that was judged is the path that is opened.
    """
    if len(encoded(name, path)) >= MAX_PATH:
        raise BadArgument(f"'{name}' is longer than the {MAX_PATH - 1} bytes that a path may have; use a shorter path.")
    whole = posixpath.normpath(posixpath.join(WORKSPACE, from_home(path)))
    return whole[1:] if whole.startswith("//") else whole


def _in_sandbox(whole: str) -> str:
    """Return the path for the command, which starts in the workspace, wherever that is."""
    if whole == WORKSPACE:
        return "."
    return whole.removeprefix(WORKSPACE + "/") if whole.startswith(WORKSPACE + "/") else whole


def target(path: str, name: str = "path") -> Target:
    """Return the file or folder that a call names. Raises BadArgument."""
    whole = absolute(name, path)
    return Target(whole, _in_sandbox(whole))


def workspace_target(path: str) -> Target:
    """Return what a path from the workspace names. Bytes in it that are not UTF-8 are as Python writes them.

    Arguments:
        path: without `..`, as a door has checked.
    """
    whole = posixpath.normpath(f"{WORKSPACE}/{path}")
    return Target(whole, _in_sandbox(whole))


@dataclass(frozen=True, slots=True)
class FileCommand:
    """What the policy judges about a call of a file tool: the tool's name and the path.

    Arguments:
        path: where the path is taken from if the call does not have one.
    """

    path: str | None = None

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        found = target(values.get("path", self.path or ""))
        return replace(blank, argv=(blank.tool, found.inner), text=found.shown)


def patterns(glob: str, folder: str) -> tuple[str, ...]:
    """Return the patterns that a glob stands for, relative to the absolute path of a folder. Raises BadArgument."""
    if glob.startswith("/"):
        glob = posixpath.normpath(glob).removeprefix(folder.rstrip("/") + "/")
    if glob.startswith("/") or ".." in glob.split("/"):
        raise BadArgument("'glob' matches paths below 'path'; name the folder in 'path' instead.")
    encoded("glob", glob)
    return _expanded(glob)


def from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise BadArgument("'content' is not valid base64; encode it, or leave out 'encoding' to write text.") from None


def check_size(name: str, size: int, instead: str) -> None:
    if size > MAX_STDIN:
        raise BadArgument(f"'{name}' is {size} bytes long; the limit is {MAX_STDIN}. Instead, {instead}.")


def _expanded(glob: str) -> tuple[str, ...]:
    """Expand `{a,b}` into one pattern for each choice. Raises BadArgument."""
    made, wanted = [], [glob]
    while wanted:
        pattern = wanted.pop()
        choice = _BRACES.search(pattern)
        if choice is None:
            made.append(pattern)
        else:
            wanted += [pattern[: choice.start()] + word + pattern[choice.end() :] for word in choice[1].split(",")]
        if len(made) + len(wanted) > MAX_PATTERNS:
            raise BadArgument(f"'glob' expands to more than {MAX_PATTERNS} patterns; list them in several calls.")
    return tuple(sorted({_tidy(pattern) for pattern in made}))


def _tidy(pattern: str) -> str:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts or len(parts) >= MAX_PARTS or len(pattern.encode()) >= MAX_PATH:
        raise BadArgument("'glob' is empty or too long; write a pattern such as `**/*.py`.")
    # A pattern that ends in `**` matches everything in the folder, and not the folder itself.
    return "/".join([*parts, "*"] if parts[-1] == "**" else parts)
