"""`supervisor file`, with the arguments that the tools give it and the reading of its replies."""

from __future__ import annotations

import os
import random
import stat
import struct
import threading
import zlib
from pathlib import Path

import anyio
import pytest

from file_driver import PATIENCE, Files, shown
from taskcell.errors import BadArgument, ErrorCode, FileRefused
from taskcell.files.lines import LINE_CHARS
from taskcell.files.reply import parse_list, parse_read, parse_write
from taskcell.files.store import Target


@pytest.fixture
def files(binary: Path, tmp_path: Path) -> Files:
    return Files(binary, tmp_path / "work")


# --- reading ----------------------------------------------------------------------------------------------------


def test_lines_come_with_their_numbers(files: Files) -> None:
    (files / "a").write_text("one\n\ttwo\n\nfour\n")
    answer = files.text("a")
    assert answer.output() == "1\tone\n2\t\ttwo\n3\t\n4\tfour\n"
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
        assert len(answer.output()) <= 5000
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


def test_a_long_line_is_cut_and_says_how_much_is_missing_and_how_to_see_it(files: Files) -> None:
    (files / "a").write_text("short\n" + "ä" * 100_000 + "\nend\n")
    answer = files.text("a")
    cut = answer.text.split("\n")[1]
    assert cut == "ä" * LINE_CHARS + f"… [{100_000 - LINE_CHARS:,} characters more]"
    assert "line 2; column=2001 with 'offset' shows more of it" in answer.notes[-1]
    assert answer.total_lines == 3
    assert not any("CRLF" in note for note in answer.notes)
    (files / "b").write_text("x" * 9000)
    assert not any("CRLF" in note for note in files.text("b").notes)
    (files / "c").write_text("x" + "\U0001f600" * 5000)
    assert not any("U+FFFD" in note for note in files.text("c").notes)
    tiny = files.text("a", 200, offset=2)
    assert len(tiny.output()) <= 200
    end = files.text("a", offset=2, limit=1, column=99_999)
    assert end.text == "ää\n"
    assert "from character 99999 on" in end.notes[0]


def test_a_long_line_of_a_large_file_is_cut_between_characters(files: Files) -> None:
    (files / "a").write_text("x" + "ä" * 1_000_000 + "\nend\n")
    answer = files.text("a")
    assert answer.text.split("\n")[0].startswith("x" + "ä" * (LINE_CHARS - 1) + "… [")
    assert not any("U+FFFD" in note for note in answer.notes)
    assert files.text("a", limit=1, column=1_000_000).text == "ää\n"


def test_a_large_file_is_read_in_the_middle_and_counted(files: Files) -> None:
    with (files / "a").open("wb") as out:
        for start in range(0, 2_000_000, 1000):
            out.write(b"".join(b"%d\n" % number for number in range(start, start + 1000)))
    answer = files.text("a", offset=1_000_001, limit=2)
    assert (answer.text, answer.total_lines) == ("1000000\n1000001\n", 2_000_000)


def test_lines_are_counted_from_the_end_in_small_and_large_files(files: Files) -> None:
    (files / "a").write_text("".join(f"{number}\n" for number in range(1, 11)))
    (files / "large").write_text("".join(f"{number}\n" for number in range(1, 400_001)))
    assert files.text("a", offset=-2).output() == "9\t9\n10\t10\n"
    assert files.text("a", offset=-3, limit=1).text == "8\n"
    assert files.text("a", offset=-99).text.startswith("1\n2\n")
    last = files.text("large", offset=-2)
    assert (last.output(), last.truncated) == ("399999\t399999\n400000\t400000\n", False)
    assert files.text("large", offset=-(10**12), limit=1).text == "1\n"
    with pytest.raises(BadArgument, match="negative to count from the end"):
        files.text("a", offset=0)


def test_several_files_come_in_one_answer(files: Files) -> None:
    (files / "a").write_text("one\n")
    (files / "b").write_text("two\n")
    answer = files.call("read_file", paths=["a", "missing", "b"])
    assert answer.output() == "==> /workspace/a <==\n1\tone\n\n==> /workspace/b <==\n1\ttwo\n"
    assert "There is no '/workspace/missing'" in answer.remark()
    assert "There is no '/workspace/x'" in str(files.refused(lambda: files.call("read_file", paths=["x", "y"])))
    with pytest.raises(BadArgument, match="needs 'path'"):
        files.call("read_file")


def test_line_ends_are_said_and_not_shown(files: Files) -> None:
    (files / "a").write_bytes(b"a\r\nb\r\n")
    assert files.text("a").text == "a\nb\n"
    assert files.text("a").notes == ("Line ends: CRLF; `edit_file` keeps them.",)
    (files / "b").write_bytes(b"a\r\n" * 3 + b"b\n")
    assert files.text("b").text == "a\na\na\nb\n"
    assert "mixed (3 CRLF, 1 LF)" in files.text("b").notes[0]
    (files / "c").write_bytes(b"a\rb\n")
    assert files.text("c").text == "a␍b\n"
    assert files.text("c").notes == ("Control characters are shown as symbols, as ␛ for ESC: line 1.",)
    (files / "large").write_bytes(b"a line of text\r\n" * 100_000)
    large = files.text("large", limit=1)
    assert (large.text, large.notes) == ("a line of text\n", ("Line ends: CRLF; `edit_file` keeps them.",))


def test_control_characters_are_shown_as_symbols_and_named_in_a_note(files: Files) -> None:
    (files / "a").write_bytes(("fine\ttoo\n" * 2000 + "\x1b[31mred\x7f\x0c\x08\n\x85c1\n").encode())
    answer = files.text("a", offset=1999)
    assert answer.text == "fine\ttoo\n" * 2 + "␛[31mred␡␌␈\n\ufffdc1\n"
    assert "symbols, as ␛ for ESC: line 2001, 2002" in answer.notes[0]
    (files / "\x07bell").touch()
    assert [(entry.path, entry.is_altered) for entry in files.list().entries] == [("␇bell", True), ("a", False)]
    assert "symbol such as ␛ have other bytes" in files.list().notes[0]


@pytest.mark.parametrize("output_chars", [200, 1000, 5000])
def test_the_text_of_an_answer_is_bounded(files: Files, output_chars: int) -> None:
    (files / "lines").write_bytes(b"a\n" * 5000)
    (files / "bad").write_bytes(b"\xe9t\xe9 \x1b " + b"x" * 300 + b"\r\n" + ("\u4e0b" * 3000 + "\r\n").encode() * 99)
    for name in ("lines", "bad"):
        for offset in (1, 2):
            answer = files.text(name, output_chars, offset=offset)
            assert len(answer.output()) <= output_chars
            assert answer.text
    for number in range(200):
        (files / f"a file with a name of some length {number}").touch()
    listing = files.list(output_chars=output_chars)
    assert len(listing.output()) <= output_chars
    assert listing.entries
    assert f"offset={len(listing.entries)}" in listing.remark()


def test_one_early_nul_or_odd_byte_does_not_make_a_log_unreadable(files: Files) -> None:
    (files / "log").write_bytes(b"\0start\n" + b"a line of the log\n" * 100)
    assert files.text("log").text.startswith("␀start\na line")
    (files / "odd").write_bytes("Grüße aus Köln\n".encode() * 20 + b"one \xff here\n")
    answer = files.text("odd")
    assert answer.text.endswith("one \ufffd here\n")
    assert "not of the encoding are shown as U+FFFD: line 21" in answer.notes[0]


@pytest.mark.parametrize(
    "data", [b"\x7fELX\0\0", bytes(range(256)) * 20, b"a\0", b"\x01\x02\x03\x04" * 10, bytes(3 << 20)]
)
def test_binary_data_says_what_to_do_instead(files: Files, data: bytes) -> None:
    (files / "a").write_bytes(data)
    refused = str(files.refused(lambda: files.read("a")))
    assert "binary" in refused
    assert f"{len(data)} bytes" in refused
    assert "terminal" in refused


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
    (files / "a").write_bytes(b"\0" * (4 << 20))
    found = Target("/workspace/a", "a")
    assert anyio.run(files.store.fetch, found).data == b"\0" * (4 << 20)
    with (files / "a").open("ab") as out:
        out.write(b"\0")
    assert "larger than" in str(files.refused(lambda: anyio.run(files.store.fetch, found)))


# --- writing ----------------------------------------------------------------------------------------------------


def test_a_new_file_gets_its_folders_and_the_usual_mode(files: Files) -> None:
    answer = files.write("a/b/c.txt", "hé\n")
    assert shown(answer) == "[Created '/workspace/a/b/c.txt': 4 bytes]\n"
    assert (files / "a/b/c.txt").read_text() == "hé\n"
    assert stat.S_IMODE((files / "a/b/c.txt").stat().st_mode) == 0o644
    assert os.listdir(files / "a/b") == ["c.txt"]


def test_a_file_that_was_there_keeps_its_mode_and_is_replaced_as_a_whole(files: Files) -> None:
    (files / "run.sh").write_text("old and longer")
    (files / "run.sh").chmod(0o750)
    with (files / "run.sh").open() as before:
        assert shown(files.write("run.sh", "new")) == "[Replaced '/workspace/run.sh': 3 bytes, mode 750]\n"
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
    assert "at most 255 bytes" in str(files.refused(lambda: files.write("n" * 256, "x")))
    assert (files / "file").read_text() == "x"


def test_input_that_breaks_off_changes_nothing(files: Files) -> None:
    (files / "a").write_text("old")
    for stdin in (b"new conten", b"new content and more"):
        for how in ("replace", "append"):
            reply = files.command("write", "11", "any", "-", how, "a", stdin=stdin)
            with pytest.raises(FileRefused):
                parse_write("/workspace/a", reply)
    assert (files / "a").read_text() == "old"


def test_a_write_is_made_on_the_content_that_is_expected_and_on_no_other(files: Files) -> None:
    data = bytes(range(256)) * 5000
    (files / "a").write_bytes(data)
    right = f"{len(data)}:{zlib.crc32(data)}"
    for wrong in ("new", f"{len(data)}:{zlib.crc32(data) ^ 1}", f"{len(data) - 1}:{zlib.crc32(data)}", "0:0"):
        with pytest.raises(FileRefused) as caught:
            parse_write("/workspace/a", files.command("write", "1", wrong, "-", "replace", "a", stdin=b"x"))
        assert caught.value.changed
    with pytest.raises(FileRefused):
        parse_write("/workspace/b", files.command("write", "1", right, "-", "replace", "b", stdin=b"x"))
    assert parse_write("/workspace/a", files.command("write", "1", right, "-", "replace", "a", stdin=b"x")).existed
    assert (files / "a").read_bytes() == b"x"
    assert not (files / "b").exists()


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
    assert listing.output().splitlines() == [
        ".hidden", "a.txt", "b.py", "dangling -> nowhere", "loop -> .", "src/", "Ä.py"
    ]  # fmt: skip
    assert tree.list(details=True).output().splitlines()[1].endswith("Z  a.txt")


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
        ("loop/*.py", ["loop/b.py", "loop/Ä.py"]),
        ("loop/src/**/*.py", ["loop/src/c.py", "loop/src/deep/er/d.py"]),
        ("**/loop/**/a.txt", ["loop/a.txt"]),
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


def test_a_long_listing_comes_in_pages(files: Files) -> None:
    for number in range(1001):
        (files / f"{number:04}").touch()
    first = files.list(output_chars=10**6)
    assert (len(first.entries), first.truncated, first.found) == (1000, True, 1001)
    assert first.remark() == "Entries 1 to 1000 of 1001; continue with offset=1000, or narrow it with 'glob'"
    last = files.list(output_chars=10**6, offset=1000)
    assert ([entry.path for entry in last.entries], last.truncated) == (["1000"], False)
    assert files.list(offset=2000).remark() == "Nothing more matches"
    (files / "0000").unlink()
    exact = files.list(output_chars=10**6)
    assert (len(exact.entries), exact.truncated, exact.remark()) == (1000, False, "1000 entries")
    short = files.list(output_chars=1000)
    assert short.truncated
    assert len(short.output()) < 1000


def test_what_changed_last_comes_first_if_asked_for(files: Files) -> None:
    for age, name in enumerate(("b", "a", "c")):
        (files / name).touch()
        os.utime(files / name, (1000 - age, 1000 - age))
    assert files.names(order="time") == ["b", "a", "c"]
    assert files.names() == ["a", "b", "c"]


@pytest.fixture
def repository(files: Files) -> Files:
    for name in (
        "src/a.js", "node_modules/x/b.js", "src/node_modules/y/c.js", ".git/config", "dist/out.js", "src/keep.log",
        "src/drop.log", "build.tmp", "docs/dist/d.js", "src/gen/e.js",
    ):  # fmt: skip
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(name)
    (files / ".gitignore").write_text("# what is made\n/dist/\n*.log\n!keep.log\n*.tmp  \nsrc/gen\r\n")
    return files


def test_what_gitignore_names_and_heavy_folders_are_left_out_and_said_so(repository: Files) -> None:
    listing = repository.list(glob="**/*.{js,log}")
    assert [entry.path for entry in listing.entries] == ["docs/dist/d.js", "src/a.js", "src/keep.log"]
    (note,) = listing.notes
    assert note.startswith("Left out, by .gitignore or as usual: .git/, dist/, node_modules/, drop.log, gen/")
    assert "all=true lists them" in note
    assert repository.names() == [".gitignore", "docs", "src"]
    assert len(repository.names(glob="**/*.{js,log}", all=True)) == 8
    # What is named is meant.
    assert repository.names(glob="node_modules/**/*.js") == ["node_modules/x/b.js"]
    assert repository.names("node_modules", glob="**/*.js") == ["x/b.js"]
    # The rules of the folders above count below.
    assert repository.names("src") == ["a.js", "keep.log"]
    (repository / "src/.gitignore").write_text("!drop.log\na.js\n")
    assert repository.names("src") == [".gitignore", "drop.log", "keep.log"]


def test_rules_of_gitignore_match_as_git_has_it(files: Files) -> None:
    for name in ("a/b/c/d.txt", "a/x.txt", "foo/bar/baz", "x y", "!odd", "#hash", "deep/a/b/c/d.txt"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text("")
    for rule, gone in (
        ("a/**/d.txt", {"a/b/c/d.txt"}),
        ("**/c", {"a/b/c/d.txt", "deep/a/b/c/d.txt"}),
        ("/a", {"a/b/c/d.txt", "a/x.txt"}),
        ("foo/bar/", {"foo/bar/baz"}),
        ("foo/bar/baz/", set()),
        ("foo/**", {"foo/bar/baz"}),
        ("x\\ y", {"x y"}),
        ("\\!odd", {"!odd"}),
        ("\\#hash", {"#hash"}),
        ("[", set()),
        ("**/" * 20 + "d.txt", set()),
    ):
        (files / ".gitignore").write_text(rule + "\n")
        names = {name for name in files.names(glob="**/*") if (files / name).is_file()}
        (files / ".gitignore").write_text("")
        every = {name for name in files.names(glob="**/*") if (files / name).is_file()}
        assert every - names == gone, rule


def test_a_folder_of_two_hundred_thousand_files_is_listed(files: Files) -> None:
    (files / "many").mkdir()
    folder = os.open(files / "many", os.O_RDONLY)
    for number in range(200_001):
        os.mknod(str(number), dir_fd=folder)
    os.close(folder)
    listing = files.list("many", glob="20000?")
    assert [entry.path for entry in listing.entries] == ["200000"]
    assert files.list("many").found == 200_001


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


def test_a_reply_that_says_too_much_is_bounded() -> None:
    """As a program in the sandbox may write it, in the place of the command."""
    much = b"x" * (5 << 20)
    words = struct.pack("<I", len(much)) + much
    counts = bytes(1 + 8 + 4) + struct.pack("<I", 0)
    listing = parse_list("a", b"\0" + counts + struct.pack("<I", 1) + b"f" + bytes(16) + words + bytes(4))
    assert len(listing.entries[0].path) < 5000
    window = b"\0\1" + words + bytes(24) + bytes(8) + words + bytes(8 * 3 + 4 + 1) + struct.pack("<I", 0)
    read = parse_read("read", "a", window)
    assert len(read.sample) < 10_000  # type: ignore[union-attr]
    assert len(read.where.path) < 5000
    for why in range(256):
        refusal = bytes((1, why)) + struct.pack("<IQ", 5, 1) + words
        with pytest.raises(FileRefused) as caught:
            parse_write("a", refusal)
        assert len(str(caught.value)) < 5000
    with pytest.raises(IndexError):
        parse_list("a", b"\0" + counts + struct.pack("<I", 5000) + much)


def test_a_reply_of_any_bytes_ends_in_an_answer_or_one_of_three_errors() -> None:
    """What comes from a sandbox may be anything; the server must not fall over it."""
    luck = random.Random(3)
    parsers = (
        lambda data: parse_read("read", "a", data),
        lambda data: parse_write("a", data),
        lambda data: parse_list("a", data),
    )
    parsed = 0
    for round_number in range(6000):
        size = luck.randrange(0, 80)
        data = bytes(luck.choice((0, 0, 1, 2, 3, 7, 8, 102, 255, luck.randrange(256))) for _ in range(size))
        try:
            parsers[round_number % 3](data)
        except (FileRefused, struct.error, IndexError):
            continue
        parsed += 1
    assert parsed
