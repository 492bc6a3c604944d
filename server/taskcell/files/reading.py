"""Reads files as models see them: text by lines, pictures, notebooks as cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anyio import to_thread

from taskcell.errors import FileRefused
from taskcell.files.answers import FileBytes, FileText
from taskcell.files.encodings import Encoding, of_mark, recognise
from taskcell.files.history import Fingerprint
from taskcell.files.kinds import is_binary, is_clean_text, known_kind
from taskcell.files.limits import MAX_DECODED
from taskcell.files.lines import Line, Lines, text_of_lines
from taskcell.files.notebook import cells_as_text
from taskcell.files.pictures import picture_type
from taskcell.files.reply import Sample, Where, Whole, Window
from taskcell.files.search import RunProgram
from taskcell.files.showing import show_picture
from taskcell.files.store import FileStore, Target
from taskcell.files.text_file import TextFile

#: What is left of a character whose bytes were cut in two.
_CUT = re.compile("[\udc80-\udcff\ufffd]{1,3}$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call wants of a file.

    Arguments:
        first: number of the first line, from 1, or from the end, where -1 is the last.
        lines: how many at most.
        column: the first character of each line, from 1.
        encoding: None means the one that is recognised.
        room: characters of the answer.
        raw: a notebook as its JSON, and not as cells.
    """

    first: int
    lines: int
    column: int
    encoding: Encoding | None
    room: int
    raw: bool = False


async def read_file(
    store: FileStore, run: RunProgram, target: Target, wanted: Wanted
) -> tuple[FileText | FileBytes, Where, Fingerprint | None]:
    """Return what a model sees of a file, which one, and which content that was, if known. Raises FileRefused."""
    found = await store.read(target, wanted.first, wanted.lines, wanted.room)
    front = _front(found)
    if picture_type(front) and wanted.encoding is None and not is_clean_text(front):
        picture, whole = await show_picture(store, run, target, found)
        return picture, found.where, None if whole is None else Fingerprint.of(whole)
    if not isinstance(found, Whole) and (most := _needs_whole(target, found, front, wanted)):
        found = await store.fetch(target, most)
    if isinstance(found, Whole):
        data = found.data
        shown = await to_thread.run_sync(_of_whole, target, data, wanted)
        return shown, found.where, Fingerprint.of(data)
    if isinstance(found, Sample):
        raise _unreadable(target, found.data, found.size)
    counted = Fingerprint(found.size, found.crc) if found.total is not None else None
    return await to_thread.run_sync(_of_window, target, found, wanted), found.where, counted


def _front(found: Whole | Sample | Window) -> bytes:
    return found.sample if isinstance(found, Window) else found.data


def _needs_whole(target: Target, found: Sample | Window, front: bytes, wanted: Wanted) -> int:
    """Return how many bytes to fetch of a large file that its lines do not show as they are; 0: they do."""
    encoding = wanted.encoding or of_mark(front) or (recognise(front) if isinstance(found, Sample) else None)
    wide = encoding is not None and encoding.name.startswith(("utf-16", "utf-32"))
    notebook = target.shown.endswith(".ipynb") and not wanted.raw
    return MAX_DECODED if wide or notebook or wanted.column > 1 else 0


def _of_whole(target: Target, data: bytes, wanted: Wanted) -> FileText:
    encoding = wanted.encoding or recognise(data)
    if wanted.encoding is None and (known_kind(data) or is_binary(data, encoding)):
        raise _unreadable(target, data, len(data))
    notes, cells = [], None
    if target.shown.endswith(".ipynb") and not wanted.raw:
        cells = cells_as_text(data)
        if cells is not None:
            notes.append('A notebook, shown as cells; encoding="utf-8" shows the JSON that `edit_file` changes.')
    try:
        file = TextFile.parse(data, encoding) if cells is None else TextFile(cells, bytearray(), encoding)
    except UnicodeError as error:
        raise FileRefused(
            f"{target.said} is not {encoding.label}, as its bytes from {getattr(error, 'start', 0)} on show; leave out "
            "'encoding' to have it recognised."
        ) from None
    notes += _about_encoding(file, wanted)
    return _of_text(target, file, len(data), wanted, notes)


def _unreadable(target: Target, front: bytes, size: int) -> FileRefused:
    kind = known_kind(front)
    if kind is not None:
        return FileRefused(f"{target.said} is {kind.name} of {size} bytes, not text; {kind.reader}.")
    return FileRefused(
        f"{target.said} is {size} bytes of binary data, not text; look at it in the terminal (`file`, `xxd`, `base64`)."
    )


def _about_encoding(file: TextFile, wanted: Wanted) -> list[str]:
    notes, ends = [], file.line_ends()
    if not file.encoding.is_plain:
        guessed = "" if file.encoding.has_mark else ", by its letters"
        kept = "as given; `edit_file` goes by what is recognised"
        said = f", {kept}" if wanted.encoding else f"{guessed}; `edit_file` keeps it"
        notes.append(f"Encoding: {file.encoding.label}{said}.")
    if ends:
        kept = "`edit_file` keeps them, and takes LF for either" if "mixed" in ends else "`edit_file` keeps them"
        notes.append(f"Line ends: {ends}; {kept}.")
    return notes


def _of_text(target: Target, file: TextFile, size: int, wanted: Wanted, notes: Sequence[str]) -> FileText:
    lines = file.text.split("\n")
    ends_whole = not lines[-1]
    if ends_whole:
        lines.pop()
    total = len(lines)
    first = wanted.first if wanted.first > 0 else max(1, total + wanted.first + 1)
    if first > max(1, total):
        raise FileRefused(f"'offset' is too large: {target.said} has only {total} line{'' if total == 1 else 's'}.")
    some = lines[first - 1 : first - 1 + wanted.lines]
    start = wanted.column - 1
    kept = [Line(line[start:], 0) for line in some]
    part = Lines(kept, first, total, ends_whole, wanted.column)
    shown = text_of_lines(target.shown, size, part, wanted.room)
    return replace(shown, encoding=file.encoding.label, notes=(*notes, *shown.notes))


def _of_window(target: Target, found: Window, wanted: Wanted) -> FileText:
    joined = b"\n".join(data for data, whole in found.lines if whole == len(data))
    encoding = wanted.encoding or recognise(joined, found.sample)
    if wanted.encoding is None and (known_kind(found.sample) or is_binary(found.sample + joined, encoding)):
        raise _unreadable(target, found.sample, found.size)
    crlf = found.crlf > 0
    lines: list[Line] = []
    for data, whole in found.lines:
        text = data.decode(encoding.name, "surrogateescape" if encoding.name == "utf-8" else "replace")
        if whole > len(data):
            text = _CUT.sub("", text)
        text = text.removesuffix("\r") if crlf else text
        lines.append(Line(text.removeprefix("\ufeff") if encoding.has_mark and not lines else text, whole - len(data)))
    file = TextFile("", bytearray(), encoding)
    notes = _about_encoding(file, wanted)
    if crlf:
        total = "" if found.total == found.crlf else " in places"
        notes.append(f"Line ends: CRLF{total}; `edit_file` keeps them.")
    part = Lines(lines, found.first, found.total, found.ends_whole)
    shown = text_of_lines(target.shown, found.size, part, wanted.room)
    return replace(shown, encoding=encoding.label, notes=(*notes, *shown.notes))
