"""Changes files: writes, appends, edits and undoes, each all or nothing, and says what became of the old content."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.answers import ChangedLines, FileChange
from taskcell.files.content import Content, content_of, in_encoding, in_the_form_of, lost_form
from taskcell.files.edits import Applied, Edit, apply_edits
from taskcell.files.encodings import UTF_8, recognise
from taskcell.files.excerpts import excerpts_of
from taskcell.files.history import FileHistory, Fingerprint, Undo
from taskcell.files.limits import MAX_CHANGED, MAX_DECODED, MAX_PLACES
from taskcell.files.reply import Placed, Stored, Whole
from taskcell.files.store import FileStore, Target
from taskcell.files.text_file import TextFile, unified
from taskcell.model import TaskKey

#: Times that a change is made anew because something else changed the file between reading and writing it.
TRIES = 5
#: Why a file is written that was not read: it is too large, or may be written and not read. If it cannot be written
#: either, writing says so.
_UNREAD = (ErrorCode.TOO_LARGE, ErrorCode.PERMISSION_DENIED, ErrorCode.INTERNAL)
_IN_PLACE = {
    Placed.LINKS: "It has other names (hard links), so it was written in place.",
    Placed.OWNER: "It belongs to another user or group, so it was written in place, and keeps that.",
    Placed.FOLDER: "Its folder cannot be written, so it was written in place.",
    Placed.MOUNT: "It is a mount of its own, so it was written in place.",
    Placed.OPEN: "A running program has it open for writing, so it was written in place.",
}


@dataclass(frozen=True, slots=True)
class TaskFile:
    """One file of a task, with what is remembered of it."""

    store: FileStore
    history: FileHistory
    task: TaskKey
    target: Target

    async def anew(self, change: Callable[[], Awaitable[FileChange]]) -> FileChange:
        """Make a change under the file's lock, and again if something else was quicker. Raises FileRefused."""
        async with self.history.lock(self.task, self.target.shown):
            for left in reversed(range(TRIES)):
                try:
                    return await change()
                except FileRefused as refused:
                    if not refused.changed or not left:
                        raise
        raise AssertionError("the last try returns or raises")

    async def before(self) -> Whole | None:
        """Return the present content; None if there is no such file. Raises FileRefused."""
        try:
            found = await self.store.read(self.target, 1, 1, 1)
            return found if isinstance(found, Whole) else await self.store.fetch(self.target, MAX_DECODED)
        except FileRefused as refused:
            if refused.code is ErrorCode.NOT_FOUND:
                return None
            raise

    async def replace(self, before: bytes | None, after: bytes, mode: int | None = None) -> Stored:
        """Replace the content that was read by another one, and remember both. Raises FileRefused."""
        expected = "new" if before is None else str(Fingerprint.of(before))
        stored = await self.store.write(self.target, after, expected=expected, mode=mode)
        await self.remember(stored, before, after)
        return stored

    async def remember(self, stored: Stored, before: bytes | None, after: bytes) -> None:
        """Remember a change; `before` None: it cannot be undone."""
        content = await to_thread.run_sync(Fingerprint.of, after)
        undo = None if before is None else await to_thread.run_sync(Undo.between, before, after)
        self.history.changed(self.task, self.target.named(stored.where), content, undo)


# --- writing ----------------------------------------------------------------------------------------------------


async def write(file: TaskFile, content: Content, *, if_unchanged: bool, mode: int | None) -> FileChange:
    """Replace a whole file. Raises FileRefused, also if it has changed since the task saw it and `if_unchanged`."""

    async def change() -> FileChange:
        try:
            found = await file.before()
        except FileRefused as refused:
            if refused.code not in _UNREAD:
                raise
            return await _write_blindly(file, content, mode)
        if if_unchanged and found is not None:
            _check_seen(file, found)
        before = None if found is None else found.data
        stored = await file.replace(before, content.data, mode)
        notes = await to_thread.run_sync(lost_form, before, content)
        return _written(file.target, stored, content, [*notes, *_placed(stored, mode)])

    return await file.anew(change)


async def _write_blindly(file: TaskFile, content: Content, mode: int | None) -> FileChange:
    """Replace a file that cannot be read first."""
    stored = await file.store.write(file.target, content.data, mode=mode)
    await file.remember(stored, None, content.data)
    return _written(file.target, stored, content, _placed(stored, mode))


def _check_seen(file: TaskFile, before: Whole) -> None:
    seen = file.history.seen(file.task, file.target.named(before.where))
    if seen is not None and seen != Fingerprint.of(before.data):
        size = len(before.data)
        raise FileRefused(
            f"{file.target.said} has changed since this task last read or wrote it (it has {size} bytes now); "
            "it was not written. Read it and write it again, or replace it as it is with if_unchanged=false."
        )


def _written(target: Target, stored: Stored, content: Content, notes: Sequence[str]) -> FileChange:
    verb = "Replaced" if stored.existed else "Created"
    mode = f", mode {stored.mode:o}" if stored.mode != 0o644 else ""
    said = f"{verb} {target.said}: {stored.size} bytes{mode}"
    return FileChange(target.shown, said, stored.size, {"replaced": stored.existed}, notes=tuple(notes))


def _placed(stored: Stored, mode: int | None = None) -> list[str]:
    """Say how a file was written, and what of its mode is lost that nobody wanted to change."""
    notes = [_IN_PLACE[stored.placed]] if stored.placed in _IN_PLACE else []
    lost = stored.mode_before & ~stored.mode & 0o6000 if stored.existed and mode is None else 0
    if lost:
        bits = [name for bit, name in ((0o4000, "set-user-ID"), (0o2000, "set-group-ID")) if lost & bit]
        words = " and ".join(bits) + (" bits are" if len(bits) > 1 else " bit is")
        notes.append(f"Its {words} lost, as at any write by another user; its mode is {stored.mode:o} now.")
    return notes


async def append(file: TaskFile, text: str, data: bytes, label: str | None, mode: int | None) -> FileChange:
    """Add to the end of a file, in its own encoding and with its own line ends. Raises FileRefused."""
    path, tries = file.target.shown, 0

    async def change() -> FileChange:
        nonlocal tries
        tries += 1
        notes: list[str] = []
        try:
            found = await file.before()
            before = None if found is None else found.data
            # A program that goes on writing, as to a log, is never waited out; adding takes nothing from it.
            goes_on = tries == TRIES and before is not None
            expected = "any" if goes_on else "new" if before is None else str(Fingerprint.of(before))
        except FileRefused as refused:
            if refused.code not in _UNREAD:
                raise
            before, expected = None, "any"
        if before is None or label is not None:
            added = content_of(label or "utf-8", data, text, label).data
        else:
            added, notes = await to_thread.run_sync(in_the_form_of, before, text)
        stored = await file.store.write(file.target, added, expected=expected, mode=mode, append=True)
        if expected == "any":
            file.history.see(file.task, file.target.named(stored.where), None)
        else:
            await file.remember(stored, before, (before or b"") + added)
        verb = f"Appended {len(added)} bytes to" if stored.existed else "Created"
        said = f"{verb} {file.target.said}: {stored.size} bytes"
        return FileChange(path, said, stored.size, {"replaced": stored.existed}, notes=(*notes, *_placed(stored, mode)))

    return await file.anew(change)


# --- editing ----------------------------------------------------------------------------------------------------


async def make_edits(file: TaskFile, edits: Sequence[Edit]) -> FileChange:
    """Make all edits or none, and return the new lines. Raises FileRefused."""
    target = file.target

    async def change() -> FileChange:
        before = (await _present(file)).data
        after, applied, text = await to_thread.run_sync(_edited, target.said, before, edits)
        stored = await file.replace(before, after)
        return await to_thread.run_sync(_report, target, text, applied, edits, stored)

    return await file.anew(change)


async def _present(file: TaskFile) -> Whole:
    before = await file.before()
    if before is None:
        return await file.store.fetch(file.target, MAX_DECODED)  # which says why it is not there
    return before


def _edited(path: str, before: bytes, edits: Sequence[Edit]) -> tuple[bytes, Applied, TextFile]:
    try:
        text = TextFile.parse(before)
    except UnicodeError:
        text = TextFile.parse(before, UTF_8)
    grown = len(text.text) + sum(edit.count * max(0, len(edit.new) - len(edit.old or "")) for edit in edits)
    if grown > MAX_CHANGED:
        raise FileRefused(
            f"{path} would be {grown} characters long, and the limit is {MAX_CHANGED}; use `sed -i` in the terminal."
        )
    applied = apply_edits(path, text, edits)
    after = in_encoding(text.encoding, text.raw(), "'new'")
    if len(after) > MAX_CHANGED:
        raise FileRefused(f"{path} would be {len(after)} bytes large; use `sed -i` in the terminal.")
    if after == before:
        raise FileRefused(
            f"The edit of {path} would change nothing, for line ends stay as they are in the file; to change those, "
            "use `sed -i` in the terminal."
        )
    return after, applied, text


def _report(target: Target, text: TextFile, applied: Applied, edits: Sequence[Edit], stored: Stored) -> FileChange:
    excerpts, lines = excerpts_of(text.text, applied.spans)
    count = applied.count
    places = "1 place" if count == 1 else f"{count} places"
    more = ", …" if count > len(lines) else ""
    where = f"at line{'' if count == 1 else 's'} {', '.join(map(str, lines))}{more}"
    details: dict[str, Any] = {"count": count, "lines": list(lines[:MAX_PLACES])}
    notes = (*_notes(text, edits), *_placed(stored))
    return FileChange(
        target.shown, f"Changed {places} in {target.said}, {where}", stored.size, details, tuple(excerpts), notes
    )


def _notes(text: TextFile, edits: Sequence[Edit]) -> list[str]:
    mixed = text.line_ends()
    given = any("\r\n" in edit.new for edit in edits)
    if "mixed" in mixed:
        return [f"Line ends are {mixed}; each new line has that of its place."]
    return ["The file's lines end in LF, so the new ones do."] if given and not mixed and text.ends else []


async def undo(file: TaskFile) -> FileChange:
    """Put back what the task's last change of a file replaced. Raises FileRefused."""
    path, said = file.target.shown, file.target.said

    async def change() -> FileChange:
        found = await _present(file)
        last = file.history.last_change(file.task, file.target.named(found.where))
        if last is None:
            raise FileRefused(
                f"No change of {said} by this task is kept that could be undone: a new file, a change of more than "
                "4 MiB and changes by commands are not. Edit it instead."
            )
        now = found.data
        if Fingerprint.of(now) != last.after:
            raise FileRefused(
                f"{said} has changed since this task's last change of it, so that cannot be undone; read it, and edit "
                "what is to be different."
            )
        before = last.apply(now)
        stored = await file.replace(now, before)
        excerpts, lines = await to_thread.run_sync(_put_back, before, last)
        done = f"Undid the last change of {said}; undo again to make it anew"
        details = {"count": 1, "lines": list(lines)}
        return FileChange(path, done, stored.size, details, tuple(excerpts), tuple(_placed(stored)))

    return await file.anew(change)


def _put_back(before: bytes, last: Undo) -> tuple[list[ChangedLines], list[int]]:
    """Return the lines that came back."""
    encoding = recognise(before)
    start, end = (
        len(unified(before[:at].decode(encoding.name, "ignore"))) for at in (last.start, last.start + len(last.removed))
    )
    return excerpts_of(unified(before.decode(encoding.name, "ignore")), [(start, end)])
