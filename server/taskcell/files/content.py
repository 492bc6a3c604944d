"""What a call writes: text in an encoding, or bytes; and what it has or lacks of the form of the file's old text."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.errors import FileRefused
from taskcell.files.encodings import UTF_8, Encoding, named
from taskcell.files.text_file import TextFile


@dataclass(frozen=True, slots=True)
class Content:
    """What a call of `write_file` writes: text, or bytes if `encoding` is None."""

    data: bytes
    text: str
    encoding: Encoding | None


def content_of(name: str, data: bytes, text: str, label: str | None) -> Content:
    """Return the content in the encoding that a call names. Raises FileRefused if it cannot hold a character."""
    if label == "base64":
        return Content(data, "", None)
    encoding = UTF_8 if label is None else named(label)
    if encoding is None:
        raise FileRefused(
            f"'{name}' is not an encoding that Python knows; use one such as utf-8, utf-16, latin-1, shift-jis or gbk."
        )
    return Content(data if encoding == UTF_8 else in_encoding(encoding, text, "'content'"), text, encoding)


def in_encoding(encoding: Encoding, text: str, what: str) -> bytes:
    try:
        return encoding.encode(text)
    except UnicodeEncodeError as error:
        character = text[error.start] if error.start < len(text) else "?"
        raise FileRefused(
            f"{what} has U+{ord(character):04X}, which {encoding.label} does not have; nothing was changed. Leave it "
            'out, or write the whole file with `write_file` and encoding="utf-8".'
        ) from None


def lost_form(before: bytes | None, content: Content) -> list[str]:
    """Say what of the old text's form the new one does not have."""
    if not before or content.encoding is None:
        return []
    try:
        old = TextFile.parse(before)
    except UnicodeError:
        return []
    new = TextFile.parse(content.data, content.encoding)
    lost = []
    if old.encoding != new.encoding and not old.encoding.is_plain:
        name = "utf-8-sig" if old.encoding == Encoding("utf-8", has_mark=True) else old.encoding.name
        name = name.removesuffix("-le") if old.encoding.has_mark and name.endswith("-le") else name
        lost.append(f'It was {old.encoding.label} and is {new.encoding.label} now; encoding="{name}" keeps that.')
    if old.line_ends() and not new.line_ends() and new.ends:
        lost.append(f"Its line ends were {old.line_ends()} and are LF now; write \\r\\n in 'content' to keep CRLF.")
    return lost


def in_the_form_of(before: bytes, text: str) -> tuple[bytes, list[str]]:
    """Return text in the encoding and with the line ends of a file that it is appended to."""
    old = TextFile.parse(before)
    size = len(old.text)
    joins = bool(size) and not old.text.endswith("\n") and not text.startswith(("\n", "\r\n"))
    notes = ["The file did not end with a line break, so its last line goes on with the first of 'content'."]
    old.replace([size], 0, text.replace("\r\n", "\n") if old.ends or not size else text)
    after = in_encoding(old.encoding, old.raw(), "'content'")
    return after[len(before) :], notes if joins else []
