"""`read_file`: encodings, kinds of files, notebooks, and pictures that a provider would refuse."""

from __future__ import annotations

import json
import struct
import zlib

import pytest

from file_driver import Files
from taskcell.errors import BadArgument
from taskcell.files.limits import MAX_PICTURE
from taskcell.files.pictures import BrokenPicture, look_at_picture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + chunk(b"IEND", b"")


def jpeg(width: int, height: int, orientation: int = 0) -> bytes:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff if orientation else b""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\0\x3f\0" + b"\x12\xff\0\x34\xff\xd0\x56"
    return b"\xff\xd8" + exif + frame + scan + b"\xff\xd9"


_HEAD = b"GIF89a" + struct.pack("<HHBBB", 3, 2, 0x80, 0, 0) + bytes(6) + b"!\xf9\x04\0\0\0\0\0"
GIF = _HEAD + b"," + struct.pack("<HHHHB", 0, 0, 3, 2, 0) + b"\x02\x02\x44\x01\0;"


def webp(kind: bytes, body: bytes) -> bytes:
    part = kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(part) + 4) + b"WEBP" + part


WEBPS = (
    webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 5, 4)),
    webp(b"VP8L", b"\x2f" + (4 | 3 << 14).to_bytes(4, "little")),
    webp(b"VP8X", b"\0\0\0\0" + (4).to_bytes(3, "little") + (3).to_bytes(3, "little")),
)


@pytest.mark.parametrize(
    ("data", "mime", "sides"),
    [
        (png(7, 5), "image/png", (7, 5)),
        (jpeg(640, 480), "image/jpeg", (640, 480)),
        (GIF, "image/gif", (3, 2)),
        *((data, "image/webp", (5, 4)) for data in WEBPS),
    ],
)
def test_a_picture_is_known_by_its_bytes_and_its_sides_are_said(
    files: Files, data: bytes, mime: str, sides: tuple[int, int]
) -> None:
    (files / "notes.txt").write_bytes(data)
    answer = files.picture("notes.txt")
    assert (answer.data, answer.mime) == (data, mime)
    assert f"{sides[0]}x{sides[1]} pixels" in answer.remark()
    # Cut off anywhere, it is never shown.
    for size in range(12, len(data)):
        (files / "notes.txt").write_bytes(data[:size])
        files.refused(lambda: files.picture("notes.txt"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(50),
        png(0, 5),
        png(5, 0),
        b"\xff\xd8\xff\xe0" + b"\0" * 9000,
        png(7, 5)[:45] + b"\x99" + png(7, 5)[46:],
        b"\xff\xd8\xff\xd9",
        png(7, 5)[:40] + b"\0" * 40,
        b"RIFF\x10\0\0\0WEBPJUNK" + b"\0" * 10,
        jpeg(5, 5).replace(b"\xff\xda", b"\xff\xdb"),
    ],
)
def test_what_only_begins_as_a_picture_is_not_shown(files: Files, data: bytes) -> None:
    (files / "a.png").write_bytes(data)
    refused = str(files.refused(lambda: files.read("a.png")))
    assert "begins as a picture" in refused
    assert "terminal" in refused


def test_a_picture_is_shown_up_to_the_providers_limits_and_not_beyond(files: Files) -> None:
    room = MAX_PICTURE - len(png(7, 5)) - 12
    (files / "a.png").write_bytes(png(7, 5, chunk(b"teXt", b"\0" * room)))
    assert len(files.picture("a.png").data) == MAX_PICTURE == 5 * 1024 * 1024 * 3 // 4
    (files / "a.png").write_bytes(png(7, 5, chunk(b"teXt", b"\0" * (room + 1))))
    assert "image_convert" in str(files.refused(lambda: files.read("a.png")))
    (files / "b.png").write_bytes(png(8000, 8000))
    files.picture("b.png")
    (files / "b.png").write_bytes(png(8001, 10))
    assert "8001x10 pixels, and at most 8000" in str(files.refused(lambda: files.read("b.png")))


def test_how_a_camera_was_held_is_said(files: Files) -> None:
    for orientation, words in ((1, ""), (3, "upside down"), (6, "90° anticlockwise"), (8, "90° clockwise")):
        (files / "a.jpg").write_bytes(jpeg(4, 3, orientation))
        notes = files.picture("a.jpg").notes
        assert (words in notes[0]) if words else not notes


def test_pictures_of_any_bytes_end_in_a_size_or_a_refusal() -> None:
    originals = [(png(7, 5), "image/png"), (jpeg(4, 3, 6), "image/jpeg"), (GIF, "image/gif"), (WEBPS[2], "image/webp")]
    for data, mime in originals:
        for at in range(8, len(data)):
            for byte in (0, 1, 0x7F, 0xFF):
                broken = data[:at] + bytes((byte,)) + data[at + 1 :]
                try:
                    found = look_at_picture(broken, mime)
                except BrokenPicture:
                    continue
                assert found.width > 0


@pytest.mark.parametrize(
    ("data", "name", "reader"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\n" + b"text " * 3000, "a PDF", "pdf_text"),
        (b"some text in front\n%PDF-1.7\n" + bytes(range(256)) * 50, "a PDF", "pdf_text"),
        (b"PK\x03\x04" + bytes(26) + b"word/document.xml" + bytes(99), "a Word document", "pandoc_read"),
        (b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml" + bytes(99), "an Excel workbook", "duckdb_query"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive", "unzip"),
        (b"\x1f\x8b\x08" + bytes(9), "gzip data", "gzip -dc"),
        (b"SQLite format 3\0" + bytes(99), "an SQLite database", "skill sql"),
        (b"\x7fELF\2\1\1" + bytes(99), "ELF", "xxd"),
        (bytes(4) + b"ftypisom" + bytes(99), "an MP4 video", "ffmpeg_probe"),
        (bytes(4) + b"ftypheic" + bytes(99), "a HEIC or AVIF picture", "image_convert"),
        (b"a/b".ljust(257, b"\0") + b"ustar" + bytes(250), "a tar archive", "tar"),
        (b"PAR1" + bytes(2 << 20), "a Parquet file", "duckdb_query"),
    ],
)
def test_a_known_kind_is_named_with_what_reads_it(files: Files, data: bytes, name: str, reader: str) -> None:
    (files / "a").write_bytes(data)
    refused = str(files.refused(lambda: files.read("a")))
    assert name in refused
    assert reader in refused


@pytest.mark.parametrize("text", ["GIF89a is a format", "ID3 tags", "BZhang", "PK\x0bx", "about %PDF-1.7", "II*"])
@pytest.mark.parametrize("lines", [1, 200_000])
def test_a_text_that_begins_as_another_kind_is_a_text(files: Files, text: str, lines: int) -> None:
    (files / "a").write_text(text + "\n" + "möre\n" * lines)
    assert files.text("a", limit=2).text.endswith("\nmöre\n")


WORDS = {
    "cp932": "これは日本語のテキストです。",
    "gb18030": "这是一个中文的配置文件。",
    "big5": "這是一個繁體中文的設定檔案",
    "euc_jp": "これは日本語のテキストです。",
    "euc_kr": "이것은 한국어 텍스트입니다",
    "koi8_r": "Это текст на русском языке",
    "cp1251": "Это текст на русском языке",
    "cp866": "Это текст на русском языке",
    "cp1252": "Grüße aus Köln, “so”",
    "cp1253": "Αυτό είναι ένα κείμενο στα ελληνικά",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "utf-16-le": "plain ASCII words in UTF-16",
    "utf-16-be": "plain ASCII words in UTF-16",
}


@pytest.mark.parametrize("encoding", WORDS)
@pytest.mark.parametrize("lines", [1, 3, 40_000])
def test_encodings_before_unicode_are_recognised_and_said(files: Files, encoding: str, lines: int) -> None:
    text = f"# settings\nname = {WORDS[encoding]}\n" * lines
    (files / "a").write_bytes(text.encode(encoding))
    answer = files.text("a", limit=2)
    assert answer.text == f"# settings\nname = {WORDS[encoding]}\n"
    assert answer.notes[0].startswith(f"Encoding: {answer.encoding}, by its letters; `edit_file` keeps it.")


def test_the_encoding_of_a_large_file_is_that_of_its_front_where_the_lines_are_ascii(files: Files) -> None:
    (files / "a").write_bytes(f"# {WORDS['koi8_r']}\n".encode("koi8_r") * 3 + b"plain ASCII\n" * 200_000)
    assert files.text("a", offset=5, limit=1).encoding == "KOI8-R"
    (files / "b").write_bytes("naïve é\n".encode() + b"plain ASCII\n" * 200_000)
    assert files.text("b", offset=5, limit=1).encoding == "UTF-8"


def test_byte_order_marks_say_the_encoding_and_are_not_shown(files: Files) -> None:
    for mark, encoding, label in (
        (b"\xff\xfe", "utf-16-le", "UTF-16LE"), (b"\xfe\xff", "utf-16-be", "UTF-16BE"),
        (b"\xef\xbb\xbf", "utf-8", "UTF-8"), (b"\xff\xfe\0\0", "utf-32-le", "UTF-32LE"),
    ):  # fmt: skip
        for times in (1, 300_000):
            (files / "a").write_bytes(mark + ("één\r\n" * times).encode(encoding))
            answer = files.text("a", limit=1)
            assert (answer.text, answer.total_lines) == ("één\n", times)
            assert f"Encoding: {label} with BOM; `edit_file` keeps it." in answer.notes


def test_an_encoding_can_be_given_and_must_fit(files: Files) -> None:
    (files / "a").write_bytes("Grüße\n".encode("latin-1"))
    given = files.text("a", encoding="koi8-r")
    assert given.text == "GrЭъe\n"
    assert given.notes == ("Encoding: KOI8-R, as given; `edit_file` goes by what is recognised.",)
    assert files.text("a", encoding="latin-1").text == "Grüße\n"
    assert "is not Shift-JIS" in str(files.refused(lambda: files.text("a", encoding="shift-jis")))
    for wrong in (
        "klingon",
        "zip",
        "base64_codec",
        "idna",
        "punycode",
        "undefined",
        "unicode_escape",
        "a\0b",
        "x" * 10_000,
    ):
        with pytest.raises(BadArgument, match="encoding"):
            files.text("a", encoding=wrong)
    # What is known as binary can be looked at all the same.
    (files / "b").write_bytes(b"\x1f\x8b\x08text")
    assert files.text("b", encoding="latin-1").text == "␟\ufffd␈text"


def test_what_is_said_of_each_of_several_files_stands_apart(files: Files) -> None:
    (files / "a").write_bytes(b"\xef\xbb\xbfone\r\n")
    (files / "b").write_text("two\n")
    answer = files.call("read_file", paths=["a", "b", "missing"])
    assert answer.output() == "==> /workspace/a <==\n1\tone\n\n==> /workspace/b <==\n1\ttwo\n"
    assert answer.remark() == (
        "/workspace/a: Lines 1 to 1 of 1 (Encoding: UTF-8 with BOM; `edit_file` keeps it) (Line ends: CRLF; "
        "`edit_file` keeps them); /workspace/b: Lines 1 to 1 of 1; There is no '/workspace/missing'; "
        "`list_files` shows what is there."
    )


def test_a_notebook_is_shown_as_its_cells(files: Files) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {
            "cell_type": "code",
            "source": "print(1)\n",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBOR" * 9000}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no"},
                {"output_type": "execute_result", "data": {"text/plain": "x" * 5000}},
            ],
        },
    ]
    (files / "a.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}, indent=1))
    answer = files.text("a.ipynb")
    assert answer.text.startswith(
        "# %% [cell 1: markdown]\n# Title\nwords\n# %% [cell 2: code]\nprint(1)\n# [output]\n1\n"
        "# [output]\n[image/png]\n# [output]\nValueError: no\n# [output]\nxxx"
    )
    assert "… [4,000 characters more]" in answer.text
    assert 'encoding="utf-8" shows the JSON' in answer.notes[0]
    assert files.text("a.ipynb", encoding="utf-8").text.startswith("{\n")
    (files / "b.ipynb").write_text('{"cells": [1')
    assert files.text("b.ipynb").text == '{"cells": [1'
