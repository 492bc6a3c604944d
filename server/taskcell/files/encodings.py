"""Recognises the encoding of a text, and turns bytes into characters and back without losing one.

What is decoded here encodes to the same bytes again: an encoding that cannot do that for a file is not chosen for it.
Bytes that are not valid become lone surrogates (U+DC80 to U+DCFF), as Python's `surrogateescape` has them.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from taskcell.files import charset

#: Bytes on each side of the first wrong one that show whether a text is damaged UTF-8.
_AROUND = 256 * 1024
#: Bytes at the front that show whether a text is UTF-16.
_FRONT = 32 * 1024
#: Byte order marks (The Unicode Standard, section 23.8), longest first: UTF-32's begins as UTF-16's does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MARK_OF = {name: mark for mark, name in _MARKS}
#: Python's name, and the one that people know.
_LABELS = {
    "cp932": "Shift-JIS", "gb18030": "GBK", "big5": "Big5", "euc_jp": "EUC-JP", "euc_kr": "EUC-KR", "koi8_r": "KOI8-R",
    "cp1252": "Windows-1252", "latin-1": "Latin-1", "utf-8": "UTF-8", "utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE",
    "utf-32-le": "UTF-32LE", "utf-32-be": "UTF-32BE", "ascii": "ASCII",
}  # fmt: skip
#: Python's codecs that are not encodings of files; some know no way to go on after a wrong byte.
_NOT_OF_FILES = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding by Python's name for it, and whether its byte order mark stands in front."""

    name: str
    has_mark: bool = False

    @property
    def is_plain(self) -> bool:
        """UTF-8 without a mark, which is not worth a word."""
        return self.name in ("utf-8", "ascii") and not self.has_mark

    @property
    def label(self) -> str:
        known = _LABELS.get(self.name, self.name.replace("cp125", "Windows-125"))
        return f"{known} with BOM" if self.has_mark else known

    def decode(self, data: bytes) -> str:
        """Decode a whole file."""
        data = data.removeprefix(_MARK_OF[self.name]) if self.has_mark else data
        return data.decode(self.name, "surrogateescape" if self.name == "utf-8" else "strict")

    def encode(self, text: str) -> bytes:
        """Encode a whole file. Raises UnicodeEncodeError."""
        mark = _MARK_OF[self.name] if self.has_mark else b""
        return mark + text.encode(self.name, "surrogateescape" if self.name == "utf-8" else "strict")


UTF_8 = Encoding("utf-8")


def named(label: str) -> Encoding | None:
    """Return the encoding that a person names, such as `latin-1`, `utf-16` (with its mark) or `Shift-JIS`; or None."""
    words = label.strip().lower().replace("_", "-").replace(" ", "-")
    if words in ("text", "utf-8", "utf8", "base64"):
        return UTF_8
    if words in ("utf-8-sig", "utf-8-bom", "utf-8-with-bom"):
        return Encoding("utf-8", has_mark=True)
    if words in ("utf-16", "utf-32"):
        return Encoding(f"{words}-le", has_mark=True)
    name = {"shift-jis": "cp932", "sjis": "cp932", "gbk": "gb18030", "gb2312": "gb18030"}.get(words, words)
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    # Codecs from bytes to bytes, such as `zip`, do not say what a text is; nor do those of one word or literal.
    if not found._is_text_encoding or found.name in _NOT_OF_FILES:
        return None
    known = {"iso8859-1": "latin-1", "koi8-r": "koi8_r"}
    return Encoding(known.get(found.name, found.name))


def of_mark(data: bytes) -> Encoding | None:
    """Return the encoding that a byte order mark names, or None."""
    return next((Encoding(name, has_mark=True) for mark, name in _MARKS if data.startswith(mark)), None)


def recognise(data: bytes, sample: bytes | None = None) -> Encoding:
    """Return the encoding of a text.

    Arguments:
        data: a whole file, or a part that begins and ends with a line.
        sample: the front of the file, if `data` is a part of it.
    """
    front = data if sample is None else sample
    found = of_mark(front) or _wide(front)
    if found is not None and (sample is not None or _returns(found, data)):
        return found
    wrong = first_wrong(data)
    if wrong is None and (sample is None or first_wrong(sample, cut=True) is None):
        return UTF_8
    # The sample may end in the middle of a character, so its last line does not count.
    data = data if sample is None else sample[: sample.rfind(b"\n") + 1] + data
    around = data[max(0, (wrong or 0) - _AROUND) :][: 2 * _AROUND]
    # Where characters of UTF-8 outnumber by far what is not, the rest is damage.
    return UTF_8 if _damage(around) * 4 <= len(_MULTIBYTE.findall(around)) else _guess(data)


def first_wrong(data: bytes, *, cut: bool = False) -> int | None:
    """Return where bytes begin that are not UTF-8; None if there are none. `cut`: the end may be half a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError as error:
        return error.start
    return None


def _damage(data: bytes) -> int:
    return sum(map(len, _HIGH.findall(_MULTIBYTE.sub(b"", data))))


def _wide(data: bytes) -> Encoding | None:
    """Return UTF-16 without a mark, as it shows in the NUL bytes of its ASCII characters."""
    front = data[:_FRONT]
    if len(front) < 8 or b"\0" not in front:
        return None
    even, odd = front[0::2], front[1::2]
    low, high = even.count(0) / len(even), odd.count(0) / len(odd)
    name = "utf-16-le" if high > 0.4 and low < 0.02 else "utf-16-be" if low > 0.4 and high < 0.02 else None
    found = Encoding(name) if name else None
    return found if found and _returns(found, front) else None


def _returns(encoding: Encoding, data: bytes) -> bool:
    """Whether a file comes back as the same bytes."""
    try:
        return encoding.encode(encoding.decode(data)) == data
    except UnicodeError:
        return False


def _guess(data: bytes) -> Encoding:
    """Return an encoding that is neither Unicode nor ASCII; Latin-1 where no other fits, for it always does."""
    found = (Encoding(name) for name in charset.ranked(data))
    return next((encoding for encoding in found if _returns(encoding, data)), Encoding("latin-1"))
