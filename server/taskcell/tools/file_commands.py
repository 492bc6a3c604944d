"""Turns the arguments of the file tools into `supervisor file` commands."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from taskcell.errors import BadArgument
from taskcell.files.limits import MAX_ENTRIES, MAX_PATH, MAX_PICTURE, MAX_RESOURCE
from taskcell.model import WORKSPACE, Command
from taskcell.schema.arguments import as_utf8, encoded
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


@dataclass(frozen=True, slots=True)
class ReadFile:
    """`read_file`; its command is `read FIRST LINES BYTES PICTURE PATH`."""

    output_chars: int

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        whole = absolute("path", values["path"])
        window = (int(values.get("offset", 1)), int(values.get("limit", MAX_LINE_NUMBER)))
        # The limit in characters is used as bytes: text beyond ASCII fills an answer a little earlier.
        bounds = (min(self.output_chars, MAX_PICTURE), MAX_PICTURE)
        return replace(blank, argv=("read", *map(str, (*window, *bounds)), _in_sandbox(whole)), text=whole)


@dataclass(frozen=True, slots=True)
class FetchFile:
    """Reads a whole file of at most `most` bytes; its command is `fetch BYTES PATH`."""

    most: int = MAX_RESOURCE

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        whole = absolute("path", values["path"])
        return replace(blank, argv=("fetch", str(self.most), _in_sandbox(whole)), text=whole)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """`write_file`; its command is `write BYTES PATH`, with the content on standard input."""

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        whole = absolute("path", values["path"])
        content = as_utf8("content", values["content"])
        if values.get("encoding") == "base64":
            content = _from_base64(content)
        _check_size("content", len(content), "create the file in the terminal, from parts or by a download")
        return replace(blank, argv=("write", str(len(content)), _in_sandbox(whole)), text=whole, stdin=content)


@dataclass(frozen=True, slots=True)
class EditFile:
    """`edit_file`; its command is `edit NOT_NEGATIVE OLD NEW PATH`, with both texts on standard input."""

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        whole = absolute("path", values["path"])
        old, new = as_utf8("old", values["old"]), as_utf8("new", values["new"])
        if old == new:
            raise BadArgument("'old' and 'new' are equal, so nothing would change.")
        _check_size("old and new", len(old) + len(new), "use `write_file`, or a program in the terminal")
        sizes = (int(values.get("count", 1)), len(old), len(new))
        return replace(blank, argv=("edit", *map(str, sizes), _in_sandbox(whole)), text=whole, stdin=old + new)


@dataclass(frozen=True, slots=True)
class ListFiles:
    """`list_files`; its command is `list ENTRIES PATH PATTERN…`."""

    def bind(self, blank: Command, values: Mapping[str, Any]) -> Command:
        whole = absolute("path", values.get("path", "."))
        glob = values.get("glob", "*")
        if glob.startswith("/"):
            glob = posixpath.normpath(glob).removeprefix(whole.rstrip("/") + "/")
        if glob.startswith("/") or ".." in glob.split("/"):
            raise BadArgument("'glob' matches paths below 'path'; name the folder in 'path' instead.")
        encoded("glob", glob)
        patterns = _expanded(glob)
        return replace(blank, argv=("list", str(MAX_ENTRIES), _in_sandbox(whole), *patterns), text=whole)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise BadArgument("'content' is not valid base64; encode it, or leave out 'encoding' to write text.") from None


def _check_size(name: str, size: int, instead: str) -> None:
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
