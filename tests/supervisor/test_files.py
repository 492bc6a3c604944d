"""`supervisor file`, with the arguments that the tools give it and the reading of its replies."""

from __future__ import annotations

import fcntl
import os
import random
import stat
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asking import text_of
from file_driver import PATIENCE, TOOLS, Files
from taskcell.errors import BadArgument, ErrorCode, FileRefused
from taskcell.files.answers import Edited, FileAnswer, FileBytes, FileReport, FolderListing, Written
from taskcell.files.reply import LINE_CHARS, parse_reply
from taskcell.mcp.answer import Answers
from taskcell.model import ToolCall

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def files(binary: Path, tmp_path: Path) -> Files:
    return Files(binary, tmp_path / "work")


# --- reading ----------------------------------------------------------------------------------------------------


def said(answer: FileAnswer, output_chars: int, *notes: str) -> int:
    """Characters of a whole answer with these notes on its sandbox."""
    report = FileReport.of("t", answer, notes, output_chars)
    return len(text_of(Answers(output_chars).of(report, structured=False)))


def test_lines_come_with_their_numbers(files: Files) -> None:
    (files / "a").write_text("one\n\ttwo\n\nfour\n")
    answer = files.text("a")
    assert answer.output() == "     1\tone\n     2\t\ttwo\n     3\t\n     4\tfour\n"
    assert (answer.text, answer.first_line, answer.last_line, answer.total_lines) == ("one\n\ttwo\n\nfour\n", 1, 4, 4)
    assert (answer.size, answer.truncated, answer.path) == (15, False, "/workspace/a")


@pytest.mark.parametrize("content", ["", "\n", "a", "a\n", "a\nb", "\n\n\n", "é\u4e2d\U0001f600\n"])
def test_small_files_come_back_exactly(files: Files, content: str) -> None:
    (files / "a").write_text(content)
    assert files.text("a").text == content


def test_a_window_says_where_to_go_on_and_the_windows_together_are_the_file(files: Files) -> None:
    lines = [f"line {number} " + "x" * (number % 300) for number in range(1, 3001)]
    (files / "a").write_text("\n".join(lines))
    got, offset = "", 1
    while True:
        answer = files.text("a", 5000, offset=offset)
        assert said(answer, 5000) <= 5000
        assert answer.total_lines == 3000
        got += answer.text
        if not answer.truncated:
            break
        assert answer.remark().endswith(f"continue with offset={answer.last_line + 1}")
        offset = answer.last_line + 1
    assert got == "\n".join(lines)


def test_a_limit_is_kept_and_the_end_is_the_end(files: Files) -> None:
    (files / "a").write_text("1\n2\n3\n4\n5")
    assert files.text("a", offset=2, limit=2).text == "2\n3\n"
    last = files.text("a", offset=5, limit=9)
    assert (last.text, last.truncated) == ("5", False)
    assert "has only 5 lines" in str(files.refused(lambda: files.read("a", offset=6)))
    assert "has only 5 lines" in str(files.refused(lambda: files.read("a", offset=10**15)))


def test_a_long_line_is_cut_and_says_how_much_is_missing(files: Files) -> None:
    (files / "a").write_text("short\n" + "ä" * 100_000 + "\nend\n")
    answer = files.text("a")
    cut = answer.text.split("\n")[1]
    assert cut == "ä" * LINE_CHARS + f"… [{200_000 - 2 * LINE_CHARS:,} bytes more]"
    assert "line" in answer.notes[-1].lower()
    assert answer.total_lines == 3
    assert not any("CRLF" in note for note in answer.notes)
    (files / "b").write_text("x" * 9000)
    assert not any("CRLF" in note for note in files.text("b").notes)
    (files / "c").write_text("x" + "\U0001f600" * 5000)
    assert not any("UTF-8" in note for note in files.text("c").notes)
    tiny = files.text("a", 200, offset=2)
    assert len(tiny.text) < 300
    assert tiny.last_line == 2


def test_a_large_file_is_read_in_the_middle_and_counted(files: Files) -> None:
    with (files / "a").open("wb") as out:
        for start in range(0, 2_000_000, 1000):
            out.write(b"".join(b"%d\n" % number for number in range(start, start + 1000)))
    answer = files.text("a", offset=1_000_001, limit=2)
    assert (answer.text, answer.total_lines) == ("1000000\n1000001\n", 2_000_000)


def test_crlf_is_noted_and_not_shown(files: Files) -> None:
    (files / "a").write_bytes(b"a\r\nb\r\n")
    assert files.text("a").text == "a\nb\n"
    assert "CRLF" in files.text("a").notes[0]
    (files / "b").write_bytes(b"a\r\nb\n")
    assert files.text("b").text == "a␍\nb\n"
    assert files.text("b").notes == ("Control characters are shown as symbols, as ␛ for ESC: line 1.",)


def test_control_characters_are_shown_as_symbols_and_named_in_a_note(files: Files) -> None:
    (files / "a").write_bytes(("fine\ttoo\n" * 50 + "\x1b[31mred\x7f\x0c\x08\n\x85c1\n").encode())
    answer = files.text("a")
    assert answer.text == "fine\ttoo\n" * 50 + "␛[31mred␡␌␈\n\ufffdc1\n"
    assert "symbols, as ␛ for ESC: line 51, 52" in answer.notes[0]
    (files / "\x07bell").touch()
    assert [(entry.path, entry.is_altered) for entry in files.list().entries] == [("␇bell", True), ("a", False)]
    assert "symbol such as ␛ have other bytes" in files.list().notes[0]


@pytest.mark.parametrize("output_chars", [200, 1000, 5000])
def test_all_the_text_of_an_answer_is_bounded_its_notes_too(files: Files, output_chars: int) -> None:
    (files / "lines").write_bytes(b"a\n" * 5000)
    (files / "bad").write_bytes(b"\xe9t\xe9 \x1b " + b"x" * 300 + b"\r\n" + ("\u4e0b" * 3000 + "\r\n").encode() * 99)
    for name in ("lines", "bad"):
        for offset in (1, 2):
            answer = files.text(name, output_chars, offset=offset)
            assert said(answer, output_chars) <= output_chars
            assert said(answer, output_chars, "A note on the sandbox." * 30) <= output_chars
            assert answer.text
            assert answer.notes or name == "lines"
    for number in range(200):
        (files / f"a file with a name of some length {number}").touch()
    listing = files.run(files.bind("list_files"), output_chars)
    assert isinstance(listing, FolderListing)
    assert said(listing, output_chars) <= output_chars
    assert said(listing, output_chars, "A note on the sandbox." * 30) <= output_chars
    assert listing.entries
    assert "narrow" in listing.remark()


def test_a_few_bytes_that_are_no_utf8_are_replaced_with_a_note(files: Files) -> None:
    (files / "a").write_bytes("Grüße aus Köln\n".encode("latin-1") + b"fine\n")
    answer = files.text("a")
    assert answer.text == "Gr\ufffd\ufffde aus K\ufffdln\nfine\n"
    assert "line 1;" in answer.notes[0]


@pytest.mark.parametrize("data", [b"\x7fELF\0\0", bytes(range(128, 256)) * 20, b"a\0", b"\x01\x02\x03\x04" * 10])
def test_binary_data_says_what_to_do_instead(files: Files, data: bytes) -> None:
    (files / "a").write_bytes(data)
    refused = str(files.refused(lambda: files.read("a")))
    assert "binary" in refused
    assert f"{len(data)} bytes" in refused
    assert "terminal" in refused


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 9000, "image/jpeg"),
        (b"GIF89a" + b"\0" * 10, "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 10, "image/webp"),
    ],
)
def test_a_picture_is_known_by_its_bytes_whatever_its_name(files: Files, data: bytes, mime: str) -> None:
    (files / "notes.txt").write_bytes(data)
    assert files.read("notes.txt") == FileBytes("/workspace/notes.txt", data, mime)


def test_a_picture_is_shown_up_to_the_limit_and_not_one_byte_more(files: Files) -> None:
    (files / "a.png").write_bytes(PNG.ljust(5 << 20, b"\0"))
    answer = files.read("a.png")
    assert isinstance(answer, FileBytes)
    assert len(answer.data) == 5 << 20
    with (files / "a.png").open("ab") as out:
        out.write(b"\0")
    assert f"{(5 << 20) + 1} bytes" in str(files.refused(lambda: files.read("a.png")))


def test_what_is_no_file_is_refused_at_once(files: Files) -> None:
    os.mkfifo(files / "fifo")
    (files / "folder").mkdir()
    (files / "null").symlink_to("/dev/zero")
    assert "a FIFO" in str(files.refused(lambda: files.read("fifo")))
    assert files.refused(lambda: files.read("folder")).code is ErrorCode.IS_A_DIRECTORY
    assert "a device" in str(files.refused(lambda: files.read("null")))
    assert "a device" in str(files.refused(lambda: files.read("/dev/zero")))
    assert "a device" in str(files.refused(lambda: files.read("/dev/tty")))


def test_files_of_the_kernel_are_read_or_refused_but_never_wait(files: Files) -> None:
    assert files.text("/proc/self/status").text.startswith("Name:\t")
    assert "cannot be read" in str(files.refused(lambda: files.read("/proc/self/mem")))


def test_links_that_lead_nowhere_or_in_a_circle_are_no_files(files: Files) -> None:
    (files / "dangling").symlink_to("nowhere")
    (files / "a").symlink_to("b")
    (files / "b").symlink_to("a")
    assert files.refused(lambda: files.read("dangling")).code is ErrorCode.NOT_FOUND
    assert files.refused(lambda: files.read("a")).code is ErrorCode.NOT_FOUND
    assert files.refused(lambda: files.read("a/b")).code is ErrorCode.NOT_FOUND
    assert files.refused(lambda: files.read("missing")).code is ErrorCode.NOT_FOUND


def test_dots_go_by_the_names_and_odd_names_are_files_too(files: Files) -> None:
    for name in ("-n", "a b", "ä\n", "*", "'\"", " "):
        (files / name).write_text(name)
        assert files.text(name).text == name
        assert files.text(f"x/../{name}").text == name
        assert files.text(f"/workspace//./{name}").text == name
    for path in ("a\0b", "x" * 4096, "\ud800"):
        with pytest.raises(BadArgument):
            files.read(path)


def test_fetching_stops_at_its_limit(files: Files) -> None:
    tool = TOOLS["read_file"]
    command = tool.fetching(tool.bind(ToolCall("p", "read_file", {"path": "a"})).task, "a")
    (files / "a").write_bytes(b"\0" * (4 << 20))
    answer = files.run(command)
    assert isinstance(answer, FileBytes)
    assert answer.data == b"\0" * (4 << 20)
    with (files / "a").open("ab") as out:
        out.write(b"\0")
    assert "larger than" in str(files.refused(lambda: files.run(command)))


# --- writing ----------------------------------------------------------------------------------------------------


def test_a_new_file_gets_its_folders_and_the_usual_mode(files: Files) -> None:
    answer = files.write("a/b/c.txt", "hé\n")
    assert answer == Written("/workspace/a/b/c.txt", 4, replaced=False)
    assert (files / "a/b/c.txt").read_text() == "hé\n"
    assert stat.S_IMODE((files / "a/b/c.txt").stat().st_mode) == 0o644
    assert os.listdir(files / "a/b") == ["c.txt"]


def test_a_file_that_was_there_keeps_its_mode_and_is_replaced_as_a_whole(files: Files) -> None:
    (files / "run.sh").write_text("old and longer")
    (files / "run.sh").chmod(0o750)
    with (files / "run.sh").open() as before:
        assert files.write("run.sh", "new").replaced
        assert before.read() == "old and longer"  # who has it open still sees one state or the other
    assert (files / "run.sh").read_text() == "new"
    assert stat.S_IMODE((files / "run.sh").stat().st_mode) == 0o750
    assert os.listdir(files.folder) == ["run.sh"]


def test_bytes_come_as_base64_and_nothing_else_passes_for_it(files: Files) -> None:
    files.write("a", "AP8K\nAA==", encoding="base64")
    assert (files / "a").read_bytes() == b"\x00\xff\n\x00"
    for wrong in ("A", "????", "AA=", "ä"):
        with pytest.raises(BadArgument, match="base64"):
            files.write("a", wrong, encoding="base64")


def test_content_has_a_limit_to_the_byte(files: Files) -> None:
    assert files.write("a", "x" * (4 << 20)).size == 4 << 20
    with pytest.raises(BadArgument, match="the limit is 4194304"):
        files.write("a", "x" * ((4 << 20) + 1))
    assert files.write("a", "").size == 0
    assert (files / "a").read_bytes() == b""


def test_a_link_is_written_through_and_stays_a_link(files: Files) -> None:
    (files / "real").mkdir()
    (files / "real/f").write_text("old")
    (files / "link").symlink_to("real/f")
    (files / "chain").symlink_to(files / "link")
    (files / "new").symlink_to("real/made")
    files.write("chain", "through")
    files.write("new", "made")
    assert (files / "real/f").read_text() == "through"
    assert (files / "real/made").read_text() == "made"
    assert all((files / name).is_symlink() for name in ("link", "chain", "new"))


def test_what_cannot_be_written_is_refused_and_nothing_is_left_behind(files: Files) -> None:
    (files / "folder").mkdir()
    os.mkfifo(files / "fifo")
    (files / "file").write_text("x")
    (files / "a").symlink_to("b")
    (files / "b").symlink_to("a")
    (files / "zero").symlink_to("/dev/zero")
    assert files.refused(lambda: files.write("folder", "x")).code is ErrorCode.IS_A_DIRECTORY
    assert files.refused(lambda: files.write(".", "x")).code is ErrorCode.IS_A_DIRECTORY
    assert files.refused(lambda: files.write("/", "x")).code is ErrorCode.IS_A_DIRECTORY
    assert "a FIFO" in str(files.refused(lambda: files.write("fifo", "x")))
    assert "a device" in str(files.refused(lambda: files.write("zero", "x")))
    assert "not a folder" in str(files.refused(lambda: files.write("file/x", "x")))
    assert "loop" in str(files.refused(lambda: files.write("a", "x")))
    assert "cannot be written" in str(files.refused(lambda: files.write("n" * 256, "x")))
    assert (files / "file").read_text() == "x"


def test_input_that_breaks_off_changes_nothing(files: Files) -> None:
    (files / "a").write_text("old")
    write = files.bind("write_file", path="a", content="new content")
    edit = files.bind("edit_file", path="a", old="old", new="new")
    for command in (write, edit):
        for stdin in (command.stdin[:-1], command.stdin + b"x"):  # type: ignore[index,operator]
            files.refused(lambda command=command, stdin=stdin: files.run(command, stdin=stdin))  # type: ignore[misc]
    assert (files / "a").read_text() == "old"


# --- editing ----------------------------------------------------------------------------------------------------


def test_an_edit_replaces_exactly_one_place(files: Files) -> None:
    (files / "a.py").write_text("def f():\n    return 1\n\ndef g():\n    return 2\n")
    assert files.edit("a.py", "    return 2\n", "    return 3\n") == Edited("/workspace/a.py", 1, (5,), 45)
    assert (files / "a.py").read_text() == "def f():\n    return 1\n\ndef g():\n    return 3\n"


def test_an_ambiguous_edit_is_refused_with_its_places(files: Files) -> None:
    (files / "a").write_text("x = 1\ny\n  x = 1\n" + "x\n" * 30)
    refused = str(files.refused(lambda: files.edit("a", "x = 1", "x = 2")))
    assert "2 times" in refused
    assert "line 1: 'x = 1'; line 3: 'x = 1'." in refused
    many = str(files.refused(lambda: files.edit("a", "x", "z")))
    assert "count=32" in many
    assert "and 12 more" in many
    assert files.edit("a", "x", "z", count=32).count == 32
    assert (files / "a").read_text() == "z = 1\ny\n  z = 1\n" + "z\n" * 30


def test_a_count_that_is_not_right_changes_nothing(files: Files) -> None:
    (files / "a").write_text("a a\n")
    for count in (1, 3):
        assert "2 times" in str(files.refused(lambda count=count: files.edit("a", "a", "b", count=count)))  # type: ignore[misc]
    assert "once" in str(files.refused(lambda: files.edit("a", "a a", "b", count=2)))
    assert (files / "a").read_text() == "a a\n"


def test_places_that_overlap_are_each_a_place(files: Files) -> None:
    (files / "a").write_text("aXaXa")
    assert "2 times" in str(files.refused(lambda: files.edit("a", "aXa", "b")))
    assert "overlap" in str(files.refused(lambda: files.edit("a", "aXa", "b", count=2)))


def test_an_edit_is_bounded_in_places_and_in_what_it_makes(files: Files) -> None:
    (files / "a").write_text("a" * 2_000_000)
    assert "count=1000001" in str(files.refused(lambda: files.edit("a", "a", "b")))
    (files / "b").write_text("a" * 1000)
    assert "would be" in str(files.refused(lambda: files.edit("b", "a", "b" * 100_000, count=1000)))
    (files / "c").write_bytes(b"a" + bytes(16 << 20))
    assert "too large" in str(files.refused(lambda: files.edit("c", "a", "b")))
    assert (files / "b").read_text() == "a" * 1000


def test_text_that_is_not_there_says_which_line_comes_near(files: Files) -> None:
    (files / "a.py").write_text("one\n\tif a:\n\t\tb()\n")
    assert "Line 2 differs from it in blanks only" in str(
        files.refused(lambda: files.edit("a.py", "    if a:\n        b()", ""))
    )
    assert "is not in" in str(files.refused(lambda: files.edit("a.py", "elsewhere", "")))
    assert files.refused(lambda: files.edit("missing", "a", "b")).code is ErrorCode.NOT_FOUND
    (files / "folder").mkdir()
    assert files.refused(lambda: files.edit("folder", "a", "b")).code is ErrorCode.IS_A_DIRECTORY
    with pytest.raises(BadArgument, match="are equal"):
        files.edit("a.py", "a", "a")


def test_crlf_is_kept_by_an_edit_that_is_given_with_lf(files: Files) -> None:
    (files / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    files.edit("dos.txt", "one\ntwo\n", "1\n2\nand\n")
    assert (files / "dos.txt").read_bytes() == b"1\r\n2\r\nand\r\nthree\r\n"
    files.edit("dos.txt", "1\r\n2\r\n", "a\r\nb\n")
    assert (files / "dos.txt").read_bytes() == b"a\r\nb\r\nand\r\nthree\r\n"
    (files / "mixed.txt").write_bytes(b"one\r\ntwo\n")
    files.edit("mixed.txt", "one\r\n", "1\r\n")
    files.refused(lambda: files.edit("mixed.txt", "1\ntwo", "x"))
    assert (files / "mixed.txt").read_bytes() == b"1\r\ntwo\n"


def test_bytes_around_an_edit_stay_as_they_are(files: Files) -> None:
    (files / "a").write_bytes(b"\xff\0\x80 old \0\xfe")
    files.edit("a", "old", "néw")
    assert (files / "a").read_bytes() == b"\xff\0\x80 n\xc3\xa9w \0\xfe"


def test_edits_do_what_replacing_in_python_does(files: Files) -> None:
    luck = random.Random(7)
    for _ in range(60):
        text = "".join(luck.choice("ab\n") for _ in range(luck.randrange(1, 40)))
        old = "".join(luck.choice("ab\n") for _ in range(luck.randrange(1, 4)))
        places = sum(text.startswith(old, at) for at in range(len(text)))
        (files / "a").write_text(text)
        if places == 0 or places != text.count(old):
            files.refused(lambda old=old, places=places: files.edit("a", old, "X\n", count=max(1, places)))  # type: ignore[misc]
            continue
        assert files.edit("a", old, "X\n", count=places).count == places
        assert (files / "a").read_text() == text.replace(old, "X\n")


def test_many_edits_at_once_lose_none(files: Files) -> None:
    numbers = range(24)
    (files / "a").write_text("".join(f"[{number}]\n" for number in numbers))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: files.edit("a", f"[{number}]", f"<{number}>"), numbers))
    assert (files / "a").read_text() == "".join(f"<{number}>\n" for number in numbers)


def test_a_file_that_another_program_has_locked_is_refused_in_time(files: Files) -> None:
    (files / "a").write_text("a")
    with (files / "a").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "locked" in str(files.refused(lambda: files.edit("a", "a", "b")))
    assert files.edit("a", "a", "b").count == 1


def test_a_link_that_is_swapped_all_the_time_never_breaks_a_file(files: Files) -> None:
    (files / "one").write_text("1" * 5000)
    (files / "two").write_text("2" * 5000)
    (files / "link").symlink_to("one")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for name in ("two", "one"):
                (files / "next").symlink_to(name)
                (files / "next").replace(files / "link")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(40):
            try:
                files.write("link", "w" * 5000)
            except FileRefused:
                continue
    finally:
        over.set()
        swapping.join(PATIENCE)
    for name in ("one", "two"):
        assert (files / name).read_text() in {letter * 5000 for letter in "12w"}
    assert not [name for name in os.listdir(files.folder) if name.startswith(".taskcell")]


# --- listing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(files: Files) -> Files:
    for name in ("b.py", "a.txt", ".hidden", "src/c.py", "src/deep/er/d.py", "src/e.ts", "src/f.tsx", "Ä.py"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(name)
    (files / "loop").symlink_to(".")
    (files / "dangling").symlink_to("nowhere")
    return files


def test_a_folder_is_listed_with_sizes_types_and_targets_in_order(tree: Files) -> None:
    listing = tree.list()
    assert [entry.path for entry in listing.entries] == [
        ".hidden", "a.txt", "b.py", "dangling", "loop", "src", "Ä.py"
    ]  # fmt: skip
    kinds = {entry.path: (entry.type, entry.size, entry.target) for entry in listing.entries}
    assert kinds["a.txt"] == ("file", 5, None)
    assert kinds["src"] == ("folder", None, None)
    assert kinds["loop"] == ("link", None, ".")
    assert kinds["dangling"] == ("link", None, "nowhere")
    assert listing.output().splitlines()[1].endswith("Z  a.txt")


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*.py", ["b.py", "Ä.py"]),
        ("**/*.py", ["b.py", "src/c.py", "src/deep/er/d.py", "Ä.py"]),
        ("src/**", ["src/c.py", "src/deep", "src/deep/er", "src/deep/er/d.py", "src/e.ts", "src/f.tsx"]),
        ("**/*.{ts,tsx}", ["src/e.ts", "src/f.tsx"]),
        ("src/**/*.py", ["src/c.py", "src/deep/er/d.py"]),
        ("**/er/*", ["src/deep/er/d.py"]),
        ("?.py", ["b.py", "Ä.py"]),
        ("[ab]*", ["a.txt", "b.py"]),
        ("[!ab]*.py", ["Ä.py"]),
        (".*", [".hidden"]),
        ("./src//*.ts", ["src/e.ts"]),
        ("/workspace/src/*.ts", ["src/e.ts"]),
        ("loop/*", []),
        ("*/nothing", []),
        ("**/**/**/d.py", ["src/deep/er/d.py"]),
    ],
)
def test_globs_match_as_people_expect(tree: Files, glob: str, names: list[str]) -> None:
    assert tree.names(glob=glob) == names


def test_globs_that_lead_out_or_are_too_many_are_refused(tree: Files) -> None:
    for glob in ("../*", "a/../../b", "/etc/*", "{a,b}" * 6, "/".join("a" * 63), "a\0b", "/"):
        with pytest.raises(BadArgument):
            tree.names(glob=glob)


def test_a_single_file_and_a_link_to_a_folder_can_be_listed(tree: Files) -> None:
    assert [(entry.path, entry.size) for entry in tree.list("src/c.py").entries] == [("src/c.py", 8)]
    assert "src" in tree.names("loop")
    assert tree.refused(lambda: tree.list("missing")).code is ErrorCode.NOT_FOUND
    assert tree.refused(lambda: tree.list("dangling")).code is ErrorCode.NOT_FOUND


def test_names_of_any_bytes_are_listed_on_one_line_each(files: Files) -> None:
    (files / "two\nlines\x1b").write_text("")
    (files.folder / os.fsdecode(b"\xff\xfe")).write_text("")
    listing = files.list()
    assert [entry.path for entry in listing.entries] == ["two\nlines␛", "\ufffd\ufffd"]
    assert len(listing.output().splitlines()) == 2
    assert "terminal" in listing.notes[0]


def test_a_listing_is_bounded_and_says_so(files: Files) -> None:
    for number in range(1001):
        (files / f"{number:04}").touch()
    listing = files.run(files.bind("list_files"), output_chars=10**6)
    assert isinstance(listing, FolderListing)
    assert len(listing.entries) == 1000
    assert listing.truncated
    (files / "0000").unlink()
    exact = files.run(files.bind("list_files"), output_chars=10**6)
    assert isinstance(exact, FolderListing)
    assert (len(exact.entries), exact.truncated) == (1000, False)
    short = files.run(files.bind("list_files"), output_chars=1000)
    assert isinstance(short, FolderListing)
    assert short.truncated
    assert said(short, 1000) <= 1000


def test_a_tree_that_is_too_deep_is_not_walked_to_its_end(files: Files) -> None:
    folder = files.folder
    for _ in range(150):
        folder = folder / "d"
        folder.mkdir()
    listing = files.list(glob="**/d")
    assert listing.truncated
    assert len(listing.entries) == 101
    assert "deep" in listing.notes[0]


# --- the replies themselves -------------------------------------------------------------------------------------


def test_a_reply_that_says_too_much_is_bounded(files: Files) -> None:
    """As a program in the sandbox may write it, in the place of the command."""
    much = b"x" * (5 << 20)
    words = struct.pack("<I", len(much)) + much
    entry = b"\0\0" + struct.pack("<I", 1) + b"f" + bytes(16) + words + bytes(4)
    listing = parse_reply(files.bind("list_files"), entry, 500)
    assert said(listing, 500) < 5000
    line = b"\0\1" + bytes(16) + b"\1" + struct.pack("<IIQ", 1, len(much), len(much)) + much
    assert said(parse_reply(files.bind("read_file", path="a"), line, 500), 500) <= 500
    edit = files.bind("edit_file", path="a", old="a", new="b")
    for why in range(256):
        refusal = bytes((1, why)) + struct.pack("<IQ", 5, 1) + words + struct.pack("<II", 1, 1) + words
        with pytest.raises(FileRefused) as caught:
            parse_reply(edit, refusal, 500)
        assert len(str(caught.value)) < 5000
    for command, head in ((edit, b"\0" + bytes(8)), (files.bind("list_files"), b"\0\0")):
        with pytest.raises(IndexError):
            parse_reply(command, head + struct.pack("<I", 5000) + much, 500)


def test_a_reply_of_any_bytes_ends_in_an_answer_or_one_of_three_errors(files: Files) -> None:
    """What comes from a sandbox may be anything; the server must not fall over it."""
    luck = random.Random(3)
    commands = [
        files.bind("read_file", path="a"),
        files.bind("write_file", path="a", content="x"),
        files.bind("edit_file", path="a", old="a", new="b"),
        files.bind("list_files"),
    ]
    for round_number in range(4000):
        size = luck.randrange(0, 80)
        data = bytes(luck.choice((0, 1, 2, 3, 7, 8, 102, 255, luck.randrange(256))) for _ in range(size))
        try:
            answer = parse_reply(commands[round_number % 4], data, 500)
        except (FileRefused, struct.error, IndexError):
            continue
        answer.output().encode("utf-8")
        answer.remark().encode("utf-8")
        assert answer.structured()
