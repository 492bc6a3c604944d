"""The file tools: what a model reads of them, and how their arguments become a `supervisor file` command."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskcell.errors import BadArgument
from taskcell.model import MIB, WORKSPACE
from taskcell.schema.arguments import as_utf8, encoded
from taskcell.schema.properties import TASK_ID, ToolAnnotations
from taskcell.tools.binding import MAX_PATH, MAX_STDIN, Binding, Bound
from taskcell.units import format_size

#: Seconds for a file command: it reads and writes memory or a local disk, and bounds its own searches to ten seconds.
FILE_TIMEOUT = 30.0
#: Bytes of a picture that is shown to the model: what its providers take, and a third more as base64.
MAX_PICTURE = 5 * MIB
#: Bytes of a file that is answered as a resource.
MAX_RESOURCE = 4 * MIB
#: Bytes of one reply of a `supervisor file` command: a picture and its header.
MAX_REPLY = 6 * MIB
#: More lines than any answer can show.
MAX_LINE = 10**15
#: As the supervisor has it.
MAX_ENTRIES = 1000
MAX_PLACES = 20
MAX_PATTERNS = 32
MAX_PARTS = 62

_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_ENCODINGS = ("text", "utf-8", "base64")


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def _path(what: str) -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "description": f"Path of the {what}: relative to {WORKSPACE}, or absolute in the task's container.",
    }


READ_SCHEMA = _object(
    {
        "path": _path("file"),
        "task_id": TASK_ID,
        "offset": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE,
            "default": 1,
            "description": "Number of the first line to read; lines count from 1.",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE,
            "description": "How many lines to read at most. Without it, as many as one answer holds.",
        },
    },
    ["path"],
)
WRITE_SCHEMA = _object(
    {
        "path": _path("file"),
        "content": {"type": "string", "description": "All that the file is to hold."},
        "task_id": TASK_ID,
        "encoding": {
            "type": "string",
            "enum": list(_ENCODINGS),
            "default": "text",
            "description": "How 'content' is given: as text (written as UTF-8), or as base64 for other bytes.",
        },
    },
    ["path", "content"],
)
EDIT_SCHEMA = _object(
    {
        "path": _path("file"),
        "old": {
            "type": "string",
            "minLength": 1,
            "description": "The text to replace, exactly as in the file, without line numbers; several lines are fine.",
        },
        "new": {"type": "string", "description": "The text to put in its place; empty deletes it."},
        "task_id": TASK_ID,
        "count": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
            "default": 1,
            "description": "How often 'old' is in the file; each place is replaced. Another number changes nothing.",
        },
    },
    ["path", "old", "new"],
)
LIST_SCHEMA = _object(
    {
        "path": {**_path("folder"), "default": "."},
        "task_id": TASK_ID,
        "glob": {
            "type": "string",
            "minLength": 1,
            "default": "*",
            "description": (
                "Pattern of the paths below the folder: `*` and `?` within a name, `**` for any folders, `[a-z]`, "
                "`{a,b}`, as in `**/*.py`. Hidden files match too."
            ),
        },
    },
    [],
)

_WHERE = f"Works in the task's own container, as `terminal` does; the files of {WORKSPACE} are shared with all skills."
DESCRIPTIONS = {
    "read_file": (
        "Read a file: text with line numbers, from 'offset' on; a picture (PNG, JPEG, GIF, WebP) as a picture. "
        f"{_WHERE}"
    ),
    "write_file": (
        "Write a whole file: makes its folders, replaces what was there in one step or not at all, and keeps the mode "
        f"of a file that was there. At most {format_size(MAX_STDIN)}. To change a part, use `edit_file`. {_WHERE}"
    ),
    "edit_file": (
        "Replace exact text in a file. 'old' must be there exactly 'count' times: give enough of the lines around it "
        f"to make it the only place. Where all lines end in CRLF, 'old' and 'new' may be given with LF. {_WHERE}"
    ),
    "list_files": (
        f"List a folder, or all paths that match a glob, with sizes and times; at most {MAX_ENTRIES}. "
        f"Links are shown, not followed. {_WHERE}"
    ),
}
TITLES = {"read_file": "Read file", "write_file": "Write file", "edit_file": "Edit file", "list_files": "List files"}
SCHEMAS = {"read_file": READ_SCHEMA, "write_file": WRITE_SCHEMA, "edit_file": EDIT_SCHEMA, "list_files": LIST_SCHEMA}


def hints(name: str) -> ToolAnnotations:
    """Reading changes nothing; a file that is written twice is the same file; a second edit is not the first."""
    reads = name in ("read_file", "list_files")
    return ToolAnnotations(
        read_only=reads, destructive=not reads, idempotent=reads or name == "write_file", open_world=False
    )


def binding(name: str, output_chars: int) -> Binding:
    """How a file tool's arguments become its command. `output_chars`: characters of one answer."""
    match name:
        case "read_file":
            return ReadFile(output_chars)
        case "write_file":
            return WriteFile()
        case "edit_file":
            return EditFile()
        case _:
            return ListFiles()


def absolute(name: str, path: str) -> str:
    """The one spelling of a path that policy rules and answers use. Raises BadArgument.

    `..` goes by the names, before any link is looked at: what was judged is what is opened.
    """
    if len(encoded(name, path)) >= MAX_PATH:
        raise BadArgument(f"'{name}' is longer than the {MAX_PATH - 1} bytes that a path may have.")
    whole = posixpath.normpath(posixpath.join(WORKSPACE, path))
    return whole[1:] if whole.startswith("//") else whole


def _in_sandbox(whole: str) -> str:
    """The same path as the command gets it, which starts in the workspace, wherever that is."""
    if whole == WORKSPACE:
        return "."
    return whole.removeprefix(WORKSPACE + "/") if whole.startswith(WORKSPACE + "/") else whole


@dataclass(frozen=True, slots=True)
class ReadFile:
    """`read_file`; its command is `read FIRST LINES BYTES PICTURE PATH`."""

    output_chars: int

    def bind(self, values: Mapping[str, Any]) -> Bound:
        whole = absolute("path", values["path"])
        window = (int(values.get("offset", 1)), int(values.get("limit", MAX_LINE)))
        # Characters as bytes: what is more than ASCII fills an answer a little earlier.
        bounds = (min(self.output_chars, MAX_PICTURE), MAX_PICTURE)
        return Bound(argv=("read", *map(str, (*window, *bounds)), _in_sandbox(whole)), text=whole)


@dataclass(frozen=True, slots=True)
class FetchFile:
    """A whole file for a resource; its command is `fetch BYTES PATH`."""

    def bind(self, values: Mapping[str, Any]) -> Bound:
        whole = absolute("path", values["path"])
        return Bound(argv=("fetch", str(MAX_RESOURCE), _in_sandbox(whole)), text=whole)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """`write_file`; its command is `write BYTES PATH`, with the content on standard input."""

    def bind(self, values: Mapping[str, Any]) -> Bound:
        whole = absolute("path", values["path"])
        content = as_utf8("content", values["content"])
        if values.get("encoding") == "base64":
            content = _from_base64(content)
        _check_size("content", len(content), "write it in the terminal, from parts or from a download")
        return Bound(argv=("write", str(len(content)), _in_sandbox(whole)), text=whole, stdin=content)


@dataclass(frozen=True, slots=True)
class EditFile:
    """`edit_file`; its command is `edit COUNT OLD NEW PATH`, with both texts on standard input."""

    def bind(self, values: Mapping[str, Any]) -> Bound:
        whole = absolute("path", values["path"])
        old, new = as_utf8("old", values["old"]), as_utf8("new", values["new"])
        if old == new:
            raise BadArgument("'old' and 'new' are the same: there is nothing to change.")
        _check_size("old and new", len(old) + len(new), "use `write_file`, or a program in the terminal")
        sizes = (int(values.get("count", 1)), len(old), len(new))
        return Bound(argv=("edit", *map(str, sizes), _in_sandbox(whole)), text=whole, stdin=old + new)


@dataclass(frozen=True, slots=True)
class ListFiles:
    """`list_files`; its command is `list ENTRIES PATH PATTERN…`."""

    def bind(self, values: Mapping[str, Any]) -> Bound:
        whole = absolute("path", values.get("path", "."))
        glob = values.get("glob", "*")
        if glob.startswith("/"):
            glob = posixpath.normpath(glob).removeprefix(whole.rstrip("/") + "/")
        if glob.startswith("/") or ".." in glob.split("/"):
            raise BadArgument("'glob' is for paths below 'path'; name the folder in 'path' instead.")
        encoded("glob", glob)
        patterns = _expanded(glob)
        return Bound(argv=("list", str(MAX_ENTRIES), _in_sandbox(whole), *patterns), text=whole)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise BadArgument("'content' is not base64; send it so, or leave out 'encoding' for text.") from None


def _check_size(name: str, size: int, instead: str) -> None:
    if size > MAX_STDIN:
        raise BadArgument(f"'{name}' is {size} bytes long, and at most {MAX_STDIN} can be given; {instead}.")


def _expanded(glob: str) -> tuple[str, ...]:
    """A glob without `{a,b}`: one pattern for each choice. Raises BadArgument."""
    made, wanted = [], [glob]
    while wanted:
        pattern = wanted.pop()
        choice = _BRACES.search(pattern)
        if choice is None:
            made.append(pattern)
        else:
            wanted += [pattern[: choice.start()] + word + pattern[choice.end() :] for word in choice[1].split(",")]
        if len(made) + len(wanted) > MAX_PATTERNS:
            raise BadArgument(f"'glob' stands for more than {MAX_PATTERNS} patterns; list them in several calls.")
    return tuple(sorted({_tidy(pattern) for pattern in made}))


def _tidy(pattern: str) -> str:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts or len(parts) >= MAX_PARTS or len(pattern.encode()) >= MAX_PATH:
        raise BadArgument("'glob' is empty or too long; write it as in `**/*.py`.")
    # What ends in `**` means all that is in there, and not the folder itself.
    return "/".join([*parts, "*"] if parts[-1] == "**" else parts)
