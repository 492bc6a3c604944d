"""The tool `edit_file`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskcell.config.settings import Settings
from taskcell.errors import BadArgument
from taskcell.files.answers import FileAnswer
from taskcell.files.changing import make_edits, undo
from taskcell.files.edits import MOST_PLACES, Edit
from taskcell.model import Command, ToolCall
from taskcell.schema.arguments import as_utf8
from taskcell.schema.forms import EMPTY_COUNTS
from taskcell.schema.properties import TASK_ID, object_schema, value_schema
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import MAX_LINE_NUMBER, FileCommand, check_size, target
from taskcell.tools.files import FILE, PATH, SIZE, TASK, FileTool, Job, common
from taskcell.tools.tool import BuiltIn, Tool

#: Edits of one call.
MAX_EDITS = 100

_EDIT: dict[str, dict[str, Any]] = {
    "old": {
        "type": "string",
        "description": "Text exactly as in the file, without line numbers; may span lines.",
    },
    "new": {"type": "string", "description": "Replacement; empty deletes `old`.", EMPTY_COUNTS: True},
    "count": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_PLACES,
        "default": 1,
        "description": "How often `old` occurs; all are replaced, or none if the number is wrong.",
    },
    "after_line": {
        "type": "integer",
        "minimum": -1,
        "maximum": MAX_LINE_NUMBER,
        "description": "Instead of `old`: insert `new` after this line; 0: at the beginning, -1: at the end.",
    },
}
_BRIEF = {name: {key: said for key, said in rule.items() if key != "description"} for name, rule in _EDIT.items()}
_SCHEMA = object_schema(
    {
        "path": PATH,
        **_EDIT,
        "edits": {
            "type": "array",
            "items": {**object_schema(_BRIEF, ["new"]), "description": "One edit."},
            "maxItems": MAX_EDITS,
            "description": "Several edits, each as beside `path`, made in turn, all or none.",
        },
        "undo": {
            "type": "boolean",
            "default": False,
            "description": "Instead of an edit: undo this task's last change of the file.",
        },
        "task_id": TASK_ID,
    },
    ["path"],
)
_REPORT = object_schema(
    {
        "path": FILE,
        "count": value_schema("integer", "Number of replacements."),
        "lines": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Line numbers of the first replacements.",
        },
        "size": SIZE,
        "notes": NOTES,
        "task_id": TASK,
    }
)


@dataclass(frozen=True, kw_only=True)
class EditFile(FileTool):
    """The tool `edit_file`."""

    def commands(self, call: ToolCall) -> Sequence[Command]:
        _edits(self.check(call))
        return (self.bind(call),)

    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        edits = _edits(values)
        file = job.file(target(values["path"]))
        return await make_edits(file, edits) if edits else await undo(file)


def _edits(values: Mapping[str, Any]) -> list[Edit]:
    """Return the edits of a call; none for an undo. Raises BadArgument."""
    # Strict clients send every argument: an empty text or 0 for one that they do not mean.
    alone = bool(values.get("old") or values.get("new") or values.get("after_line"))
    several = values.get("edits") or []
    if values.get("undo", False):
        if alone or several:
            raise BadArgument("'undo' takes no edit beside it; undo first, then edit.")
        return []
    if alone and several:
        raise BadArgument("Give one edit as 'old' and 'new', or several as 'edits', not both.")
    made = [_edit(each, f"'edits[{at}]'") for at, each in enumerate(several)] if several else [_edit(values, "")]
    size = sum(len(each.new) + len(each.old or "") for each in made)
    check_size("old and new", size, "use `write_file`, or a program in the terminal")
    return made


def _edit(values: Mapping[str, Any], where: str) -> Edit:
    at = f"{where}: " if where else ""
    old, new, after = values.get("old"), values.get("new"), values.get("after_line")
    if new is None:
        raise BadArgument(f"{at}'edit_file' needs 'new'; an empty text deletes 'old'.")
    as_utf8("new", new)
    if old and after:
        raise BadArgument(f"{at}Give 'old' to replace text, or 'after_line' to insert lines, not both; 0 is none.")
    if after is not None and not old:
        return Edit(None, new, after_line=int(after))
    if not old:
        raise BadArgument(f"{at}'edit_file' needs 'old', the text to replace, or 'after_line' to insert lines.")
    as_utf8("old", old)
    if old == new:
        raise BadArgument(f"{at}'old' and 'new' are equal, so nothing would change.")
    return Edit(old, new, int(values.get("count", 1)))


def _make(settings: Settings) -> Iterator[Tool]:
    yield EditFile(
        title="Edit file",
        description=(
            "Replace exact text in a file, or insert lines. `old` must occur exactly `count` times: include enough "
            "context. LF matches CRLF too; encoding and line ends are kept. Returns the new lines."
        ),
        input_schema=_SCHEMA,
        output_schema=_REPORT,
        binding=FileCommand(),
        **common("edit_file", settings, reads=False, idempotent=False),
    )


BUILT_IN = BuiltIn(names=("edit_file",), make=_make, rank=6)
