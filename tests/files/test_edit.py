"""`edit_file`: what it replaces and inserts, what it keeps, what it refuses, and what it undoes."""

from __future__ import annotations

import fcntl
import os
import random
import stat

import anyio
import pytest

from file_driver import Files, shown
from taskcell.errors import BadArgument, ErrorCode
from taskcell.files.changing import TRIES


def test_an_edit_replaces_exactly_one_place_and_shows_the_new_lines(files: Files) -> None:
    (files / "a.py").write_text("def f():\n    return 1\n\ndef g():\n    return 2\n")
    answer = files.edit("a.py", "    return 2\n", "    x = 3\n    return x\n")
    assert shown(answer) == (
        "4\tdef g():\n5\t    x = 3\n6\t    return x\n[Changed 1 place in '/workspace/a.py', at line 5]\n"
    )
    assert answer.structured() == {"path": "/workspace/a.py", "size": 55, "count": 1, "lines": [5]}
    assert (files / "a.py").read_text() == "def f():\n    return 1\n\ndef g():\n    x = 3\n    return x\n"


def test_an_ambiguous_edit_is_refused_with_its_places(files: Files) -> None:
    (files / "a").write_text("x = 1\ny\n  x = 1\n" + "x\n" * 30)
    refused = str(files.refused(lambda: files.edit("a", "x = 1", "x = 2")))
    assert "2 times" in refused
    assert "line 1: 'x = 1'; line 3: 'x = 1'." in refused
    many = str(files.refused(lambda: files.edit("a", "x", "z")))
    assert "count=32" in many
    assert "and 12 more" in many
    assert files.edit("a", "x", "z", count=32).details["count"] == 32
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


def test_what_cannot_be_edited_is_refused(files: Files) -> None:
    (files / "a.py").write_text("a\n")
    (files / "folder").mkdir()
    assert files.refused(lambda: files.edit("missing", "a", "b")).code is ErrorCode.NOT_FOUND
    assert files.refused(lambda: files.edit("folder", "a", "b")).code is ErrorCode.IS_A_DIRECTORY
    for wrong in (
        {"old": "a", "new": "a"}, {"old": "a"}, {"new": "a"}, {}, {"old": "", "new": "b"}, {"edits": []},
        {"old": "a", "new": "b", "edits": [{"old": "a", "new": "b"}]}, {"undo": True, "old": "a", "new": "b"},
        {"old": "a", "new": "b", "after_line": 1}, {"edits": [{"old": "a", "new": "a"}]},
    ):  # fmt: skip
        with pytest.raises(BadArgument):
            files.call("edit_file", path="a.py", **wrong)
    assert (files / "a.py").read_text() == "a\n"


def test_several_edits_are_made_in_turn_or_not_at_all(files: Files) -> None:
    (files / "a").write_text("one\ntwo\nthree\n")
    both = [{"old": "one", "new": "1"}, {"old": "1\ntwo", "new": "1\n2\n2b"}]
    refused = str(files.refused(lambda: files.edit("a", edits=[*both, {"old": "four", "new": "4"}])))
    assert refused.startswith("Edit 3 of 3: 'old' is not in '/workspace/a'; nothing was changed.")
    assert (files / "a").read_text() == "one\ntwo\nthree\n"
    answer = files.edit("a", edits=[*both, {"old": "three", "new": "3"}])
    assert (files / "a").read_text() == "1\n2\n2b\n3\n"
    assert answer.output() == "1\t1\n2\t2\n3\t2b\n4\t3\n"
    assert answer.details["count"] == 3
    (files / "a").write_text("one\ntwo\nthree\n")
    overlapping = [{"old": "one\ntwo", "new": "1\n2"}, {"old": "two\nthree", "new": "2\n3"}]
    refused = str(files.refused(lambda: files.edit("a", edits=overlapping)))
    assert refused.startswith("Edit 2 of 2: 'old' was in '/workspace/a', and an edit before it in this call changes")
    assert (files / "a").read_text() == "one\ntwo\nthree\n"


def test_one_line_at_the_beginning_is_replaced_beside_a_line_number_of_0(files: Files) -> None:
    (files / "a").write_text("one\ntwo\n")
    files.edit("a", "two", "2", after_line=0)
    assert (files / "a").read_text() == "one\n2\n"
    files.edit("a", "", "zero", after_line=0)
    assert (files / "a").read_text() == "zero\none\n2\n"


def test_lines_are_inserted_after_a_line_as_it_was_numbered_before_the_call(files: Files) -> None:
    (files / "a").write_text("one\ntwo\nthree")
    answer = files.edit("a", new="1b", after_line=1)
    assert answer.output() == "1\tone\n2\t1b\n3\ttwo\n"
    assert (files / "a").read_text() == "one\n1b\ntwo\nthree"
    files.edit("a", new="zero\n", after_line=0)
    files.edit("a", new="end", after_line=-1)
    assert (files / "a").read_text() == "zero\none\n1b\ntwo\nthree\nend"
    (files / "b").write_text("1\n2\n3\n")
    files.edit(
        "b",
        edits=[
            {"after_line": 1, "new": "1b\n1c"}, {"old": "2\n", "new": "two\nand\n"}, {"after_line": 2, "new": "2b"},
            {"after_line": 3, "new": "3b"}, {"after_line": 1, "new": "1d"},
        ],
    )  # fmt: skip
    assert (files / "b").read_text() == "1\n1b\n1c\n1d\ntwo\nand\n2b\n3\n3b\n"
    assert "has only 9 lines" in str(files.refused(lambda: files.edit("b", new="x", after_line=10)))
    (files / "empty").write_text("")
    files.edit("empty", new="x", after_line=0)
    assert (files / "empty").read_text() == "x\n"


def test_either_line_end_matches_and_each_new_line_gets_that_of_its_place(files: Files) -> None:
    (files / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    files.edit("dos.txt", "one\ntwo\n", "1\n2\nand\n")
    assert (files / "dos.txt").read_bytes() == b"1\r\n2\r\nand\r\nthree\r\n"
    files.edit("dos.txt", "1\r\n2\r\n", "a\r\nb\n")
    assert (files / "dos.txt").read_bytes() == b"a\r\nb\r\nand\r\nthree\r\n"
    (files / "mixed.txt").write_bytes(b"one\r\ntwo\nthree\nfour\r\n")
    answer = files.edit("mixed.txt", "one\ntwo\n", "1\n1b\n2\n")
    assert (files / "mixed.txt").read_bytes() == b"1\r\n1b\n2\nthree\nfour\r\n"
    assert "mixed (2 CRLF, 3 LF)" in answer.notes[0]
    files.edit("mixed.txt", "four", "four\nfive")
    assert (files / "mixed.txt").read_bytes().endswith(b"three\nfour\r\nfive\r\n")
    files.edit("mixed.txt", new="six", after_line=-1)
    assert (files / "mixed.txt").read_bytes().endswith(b"five\r\nsix\r\n")
    (files / "all gone").write_bytes(b"a\r\nb\r\n")
    files.edit("all gone", edits=[{"old": "a\nb\n", "new": ""}, {"after_line": -1, "new": "c\nd"}])
    assert (files / "all gone").read_bytes() == b"c\r\nd\r\n"
    (files / "unix").write_bytes(b"a\nb\n")
    assert "end in LF" in files.edit("unix", "a\r\nb", "1\r\n2").notes[0]
    assert (files / "unix").read_bytes() == b"1\n2\n"
    assert "change nothing" in str(files.refused(lambda: files.edit("dos.txt", "\r\n", "\n", count=4)))


@pytest.mark.parametrize(
    ("encoding", "mark", "words"),
    [
        ("utf-8", b"\xef\xbb\xbf", "héllo wörld"), ("utf-16-le", b"\xff\xfe", "héllo wörld"),
        ("utf-16-be", b"\xfe\xff", "これは"), ("utf-16-le", b"", "plain words"), ("utf-32-le", b"\xff\xfe\0\0", "x"),
        ("cp932", b"", "これは日本語のテキストです"), ("gb18030", b"", "这是一个中文的配置文件"),
        ("koi8_r", b"", "Это текст на русском языке"), ("cp1251", b"", "Это текст на русском языке"),
        ("cp1252", b"", "Grüße aus Köln, “quoted”"), ("latin-1", b"", "naïve café"),
        ("euc_jp", b"", "これは日本語のテキストです"), ("big5", b"", "這是一個繁體中文的設定檔案"),
        ("euc_kr", b"", "이것은 한국어 텍스트입니다"),
    ],
)  # fmt: skip
def test_a_files_encoding_and_mark_are_kept(files: Files, encoding: str, mark: bytes, words: str) -> None:
    before = f"# {words}\r\nname = old\r\n"
    (files / "a").write_bytes(mark + before.encode(encoding))
    assert files.text("a").text == before.replace("\r\n", "\n")
    files.edit("a", f"{words}\nname = old", f"{words}\nname = new\nmore = {words}")
    after = f"# {words}\r\nname = new\r\nmore = {words}\r\n"
    assert (files / "a").read_bytes() == mark + after.encode(encoding)


def test_a_character_that_the_encoding_does_not_have_is_refused(files: Files) -> None:
    (files / "a").write_bytes("café\n".encode("latin-1"))
    refused = str(files.refused(lambda: files.edit("a", "caf", "→")))
    assert "U+2192, which Windows-1252 does not have" in refused
    assert 'encoding="utf-8"' in refused
    assert (files / "a").read_bytes() == "café\n".encode("latin-1")


def test_bytes_around_an_edit_stay_as_they_are(files: Files) -> None:
    (files / "a").write_bytes(b"\xff\0\x80 old \0\xfe\r\n\r \n")
    files.edit("a", "old", "new")
    assert (files / "a").read_bytes() == b"\xff\0\x80 new \0\xfe\r\n\r \n"
    (files / "b").write_bytes("Grüße\n".encode() * 9 + b"\xff old\n")
    files.edit("b", "old", "néw")
    assert (files / "b").read_bytes() == "Grüße\n".encode() * 9 + "\xff néw\n".encode().replace(b"\xc3\xbf", b"\xff")


def test_mode_and_links_are_kept(files: Files) -> None:
    (files / "real").write_text("old\n")
    (files / "real").chmod(0o754)
    os.link(files / "real", files / "other")
    (files / "link").symlink_to("real")
    answer = files.edit("link", "old", "new")
    assert "hard links" in answer.notes[0]
    assert (files / "other").read_text() == "new\n"
    assert os.stat(files / "real").st_ino == os.stat(files / "other").st_ino
    assert (files / "link").is_symlink()
    assert stat.S_IMODE((files / "real").stat().st_mode) == 0o754


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
        assert files.edit("a", old, "X\n", count=places).details["count"] == places
        assert (files / "a").read_text() == text.replace(old, "X\n")


def test_many_edits_at_once_lose_none(files: Files) -> None:
    numbers = range(60)
    (files / "a").write_text("".join(f"[{number}]\n" for number in numbers))

    async def edit(number: int) -> None:
        await files.answer("edit_file", path="a", old=f"[{number}]", new=f"<{number}>")

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(edit, number)

    anyio.run(all_at_once)
    assert (files / "a").read_text() == "".join(f"<{number}>\n" for number in numbers)


def test_what_another_program_writes_between_reading_and_writing_is_not_lost(files: Files) -> None:
    (files / "a").write_text("old\n")
    changes = 0
    command = files.command

    def meddling(*words: str, stdin: bytes | None = None) -> bytes:
        nonlocal changes
        if words[0] == "write" and changes < 2:
            changes += 1
            with (files / "a").open("a") as out:
                out.write(f"theirs {changes}\n")
        return command(*words, stdin=stdin)

    files.command = meddling  # type: ignore[method-assign]
    files.edit("a", "old", "new")
    assert (files / "a").read_text() == "new\ntheirs 1\ntheirs 2\n"
    changes = -TRIES
    assert "Something else changed" in str(files.refused(lambda: files.edit("a", "new", "newer")))
    assert (files / "a").read_text().startswith("new\n")


def test_a_file_that_another_program_has_locked_is_refused_in_time(files: Files) -> None:
    (files / "a").write_text("a")
    with (files / "a").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "locked" in str(files.refused(lambda: files.edit("a", "a", "b")))
    assert files.edit("a", "a", "b").details["count"] == 1


def test_the_last_change_of_a_file_is_undone_and_made_anew(files: Files) -> None:
    (files / "a").write_bytes(b"one\r\ntwo\nthree \xff\n" * 3)
    before = (files / "a").read_bytes()
    files.edit("a", "two\nthree", "2\n3\n4", count=3)
    after = (files / "a").read_bytes()
    assert "two" in files.edit("a", undo=True).output()
    assert (files / "a").read_bytes() == before
    files.edit("a", undo=True)
    assert (files / "a").read_bytes() == after
    files.write("a", "all new\n")
    files.edit("a", undo=True)
    assert (files / "a").read_bytes() == after
    (files / "a").write_text("by a command\n")
    assert "has changed since" in str(files.refused(lambda: files.edit("a", undo=True)))
    assert "There is no '/workspace/b'" in str(files.refused(lambda: files.edit("b", undo=True)))
    (files / "b").write_text("by a command\n")
    assert "No change of '/workspace/b'" in str(files.refused(lambda: files.edit("b", undo=True)))
    assert (files / "a").read_text() == "by a command\n"
