"""Known kinds of files that are not text, by their first bytes, and what reads them."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.files.encodings import Encoding, first_wrong


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file and how to look into it, as words of a sentence."""

    name: str
    reader: str


_PACKED = "unpack it in the terminal (`tar`, `unzip`, `gzip -dc`, `xz -dc`)"
_MEDIA = "the skill ffmpeg tells what is in it (`ffmpeg_probe`)"
_PICTURE = "the skill image turns it into PNG or JPEG (`image_convert`), which can be read"
_OFFICE = "the skill pandoc reads it (`pandoc_read`)"
_TABLES = "the skill duckdb queries it (`duckdb_query`)"
_PROGRAM = "look at it in the terminal (`file`, `strings`, `xxd`)"

#: First bytes, from the pages of each format.
_FRONTS = (
    (b"\x1f\x8b", FileKind("gzip data", _PACKED)),
    (b"BZh", FileKind("bzip2 data", _PACKED)),
    (b"\xfd7zXZ\0", FileKind("xz data", _PACKED)),
    (b"\x28\xb5\x2f\xfd", FileKind("Zstandard data", _PACKED)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7-Zip archive", _PACKED)),
    (b"Rar!\x1a\x07", FileKind("a RAR archive", _PACKED)),
    (b"\x7fELF", FileKind("a program or library (ELF)", _PROGRAM)),
    (b"\xcf\xfa\xed\xfe", FileKind("a program or library (Mach-O)", _PROGRAM)),
    (b"\xca\xfe\xba\xbe", FileKind("a Java class or Mach-O program", _PROGRAM)),
    (b"\0asm", FileKind("a WebAssembly module", _PROGRAM)),
    (b"!<arch>\n", FileKind("a library archive", _PROGRAM)),
    (b"SQLite format 3\0", FileKind("an SQLite database", "the skill sql queries it")),
    (b"PAR1", FileKind("a Parquet file", _TABLES)),
    (b"ARROW1", FileKind("an Arrow file", _TABLES)),
    (b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file", "read it with Python in the terminal")),
    (b"\x93NUMPY", FileKind("a NumPy array", "read it with Python in the terminal")),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        FileKind("an old Office document (OLE)", "convert it, for example to .docx, first"),
    ),
    (b"ID3", FileKind("an MP3 file", _MEDIA)),
    (b"OggS", FileKind("an Ogg file", _MEDIA)),
    (b"fLaC", FileKind("a FLAC file", _MEDIA)),
    (b"\x1a\x45\xdf\xa3", FileKind("a Matroska or WebM video", _MEDIA)),
    (b"II*\0", FileKind("a TIFF picture", _PICTURE)),
    (b"MM\0*", FileKind("a TIFF picture", _PICTURE)),
    (b"8BPS", FileKind("a Photoshop picture", _PICTURE)),
    (b"\0\0\1\0", FileKind("an icon (ICO)", _PICTURE)),
    (b"MZ\x90\0", FileKind("a Windows program", _PROGRAM)),
    (b"wOFF", FileKind("a font", _PROGRAM)),
    (b"wOF2", FileKind("a font", _PROGRAM)),
)
#: Marks that stand behind the first bytes, the more telling ones first.
_PLACED = (
    (257, b"ustar", FileKind("a tar archive", _PACKED)),
    *(
        (4, b"ftyp" + brand, FileKind("a HEIC or AVIF picture", _PICTURE))
        for brand in (b"heic", b"heix", b"mif1", b"avif")
    ),
    (4, b"ftyp", FileKind("an MP4 video", _MEDIA)),
    (8, b"WAVEfmt ", FileKind("a WAVE file", _MEDIA)),
    (8, b"AVI LIST", FileKind("an AVI video", _MEDIA)),
)
_PDF = FileKind("a PDF", "the skill pdf reads it (`pdf_text`, `pdf_pages`)")
#: A header of PDF may stand behind other bytes (ISO 32000-1, annex H.3.4.1).
_PDF_FRONT = 1024
_ZIPPED = (
    (b"word/", FileKind("a Word document", _OFFICE)),
    (b"xl/", FileKind("an Excel workbook", _TABLES)),
    (b"ppt/", FileKind("a PowerPoint presentation", _OFFICE)),
    (b"application/epub+zip", FileKind("an EPUB book", _OFFICE)),
    (b"application/vnd.oasis.opendocument", FileKind("an OpenDocument file", _OFFICE)),
)
#: Bytes that show what a file is.
_FRONT = 8192
_CONTROLS = bytes((*range(7), *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F))
#: One in so many bytes may be a control character in UTF-8, and in an encoding that was guessed: random bytes have one
#: in nine.
_ODD_SHARE, _ODD_SHARE_GUESSED = 4, 50


def is_clean_text(data: bytes) -> bool:
    """Whether the front of a file is UTF-8 without control characters: text, whatever its first letters are."""
    front = data[:_FRONT]
    if len(front.translate(None, _CONTROLS)) < len(front):
        return False
    return first_wrong(front, cut=True) is None


def known_kind(data: bytes) -> FileKind | None:
    """Return the kind of a file by its front; None for text, and for what nobody knows."""
    if data.startswith(b"%PDF-"):
        return _PDF
    if is_clean_text(data):
        return None
    if b"%PDF-" in data[:_PDF_FRONT]:
        return _PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        inside = (kind for mark, kind in _ZIPPED if mark in data[:_FRONT])
        return next(inside, FileKind("a ZIP archive", _PACKED))
    placed = (kind for at, mark, kind in _PLACED if data[at : at + len(mark)] == mark)
    return next((kind for front, kind in _FRONTS if data.startswith(front)), next(placed, None))


def is_binary(data: bytes, encoding: Encoding) -> bool:
    """Whether so many bytes are control characters that this is not a text of that encoding."""
    if encoding.name.startswith(("utf-16", "utf-32")):
        return False
    odd = len(data) - len(data.translate(None, _CONTROLS))
    if encoding.name == "utf-8":
        odd += len(data) - len(data.decode("utf-8", "ignore").encode())
    return odd * (_ODD_SHARE if encoding.name == "utf-8" else _ODD_SHARE_GUESSED) > len(data)
