"""`write_file`: appending, modes, writing in place, the guard against what changed, and what it says is lost."""

from __future__ import annotations

import os
import stat

import anyio
import pytest

from file_driver import TASK, Files, shown
from taskcell.errors import BadArgument
from taskcell.files.changing import TRIES
from taskcell.files.history import MAX_FILES, MAX_TASKS, MAX_UNDO, FileHistory, Fingerprint, Undo
from taskcell.files.reply import Where
from taskcell.model import TaskKey


def test_text_is_appended_in_the_files_own_form(files: Files) -> None:
    (files / "a").write_bytes(b"\xff\xfe" + "één\r\n".encode("utf-16-le"))
    assert files.write("a", "two\nthree\n", append=True).size == 36
    assert (files / "a").read_bytes() == b"\xff\xfe" + "één\r\ntwo\r\nthree\r\n".encode("utf-16-le")
    (files / "b").write_text("one")
    assert "goes on with the first" in files.write("b", " more\n", append=True).notes[0]
    assert (files / "b").read_text() == "one more\n"
    assert shown(files.write("new/c", "x\r\n", append=True)) == "[Created '/workspace/new/c': 3 bytes]\n"
    (files / "large").write_bytes(b"a line\n" * 3_000_000)
    files.write("large", "the end\n", append=True)
    assert (files / "large").read_bytes().endswith(b"a line\nthe end\n")
    files.edit("b", undo=True)
    assert (files / "b").read_text() == "one"
    assert "does not have" in str(files.refused(lambda: files.write("latin", "→", append=True, encoding="latin-1")))
    assert not (files / "latin").exists()


def test_bytes_and_text_of_a_named_encoding_are_appended_to_what_is_there(files: Files) -> None:
    (files / "a").write_bytes(b"\x00one")
    assert "Appended 2 bytes" in shown(files.write("a", "/v8=", append=True, encoding="base64"))
    assert "Appended 2 bytes" in shown(files.write("a", "日", append=True, encoding="Shift_JIS"))
    assert (files / "a").read_bytes() == b"\x00one\xfe\xff" + "日".encode("cp932")
    files.write("new", "/v8=", append=True, encoding="base64")
    files.write("new", "/v8=", append=True, encoding=" Base64")
    assert (files / "new").read_bytes() == b"\xfe\xff" * 2


def test_an_encoding_that_lacks_a_character_is_refused_before_anything_is_written(files: Files) -> None:
    (files / "a").write_text("old")
    for encoding in ("ascii", "latin-1", "shift-jis", "koi8-r"):
        assert "does not have" in str(files.refused(lambda e=encoding: files.write("a", "\U0001f600", encoding=e)))  # type: ignore[misc]
    for encoding in ("idna", "punycode", "undefined", "hex"):
        assert "not an encoding" in str(files.refused(lambda e=encoding: files.write("a", "x", encoding=e)))  # type: ignore[misc]
    assert (files / "a").read_text() == "old"
    files.write("a", "plain", encoding="ASCII")
    assert (files / "a").read_text() == "plain"


def test_a_text_that_keeps_its_encoding_is_not_said_to_lose_it(files: Files) -> None:
    for name in ("koi8-r", "KOI8_R", "cp1251", "shift-jis", "gbk", "euc-jp"):
        text = "Это текст на русском языке\n" if name[0] in "kKc" else "日本語の文章です、これは。漢字仮名交じり文\n"
        (files / "a").write_bytes(text.encode(name))
        assert not files.write("a", text, encoding=name, if_unchanged=False).notes, name


def test_many_appends_at_once_lose_none(files: Files) -> None:
    async def append(number: int) -> None:
        await files.answer("write_file", path="log", content=f"{number}\n", append=True)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(append, number)

    anyio.run(all_at_once)
    assert sorted(map(int, (files / "log").read_text().split())) == list(range(40))


def test_a_mode_is_set_on_new_and_old_files(files: Files) -> None:
    assert "mode 755" in files.write("run.sh", "x", mode="755").said
    files.write("run.sh", "y")
    assert stat.S_IMODE((files / "run.sh").stat().st_mode) == 0o755
    files.write("run.sh", "z", mode="0600")
    assert stat.S_IMODE((files / "run.sh").stat().st_mode) == 0o600
    for wrong in ("7777", "rwx", "9"):
        with pytest.raises(BadArgument, match="mode"):
            files.write("run.sh", "x", mode=wrong)


def test_a_file_with_other_names_is_written_in_place_and_keeps_them(files: Files) -> None:
    (files / "a").write_text("old and longer")
    os.link(files / "a", files / "b")
    assert "hard links" in files.write("a", "new").notes[0]
    assert (files / "b").read_text() == "new"


def test_what_changed_since_the_task_saw_it_is_not_overwritten(files: Files) -> None:
    (files / "a").write_text("one\n")
    files.text("a")
    (files / "a").write_text("two\n")
    refused = str(files.refused(lambda: files.write("a", "mine\n")))
    assert "has changed since this task last read or wrote it" in refused
    assert "if_unchanged=false" in refused
    assert (files / "a").read_text() == "two\n"
    files.text("a")
    files.write("a", "mine\n")
    files.write("a", "mine again\n")
    files.edit("a", "again", "still")
    files.write("a", "mine\n")
    (files / "a").write_text("three\n")
    files.write("a", "mine\n", if_unchanged=False)
    assert (files / "a").read_text() == "mine\n"
    (files / "never read").write_text("x")
    files.write("never read", "y")
    (files / "a").unlink()
    files.write("a", "anew\n")


def test_what_a_new_text_lacks_of_the_old_ones_form_is_said(files: Files) -> None:
    (files / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    notes = files.write("a", "1\n2\n").notes
    assert 'It was UTF-8 with BOM and is UTF-8 now; encoding="utf-8-sig" keeps that.' in notes
    assert "Its line ends were CRLF and are LF now" in notes[1]
    (files / "b").write_bytes(b"\xff\xfe" + "é\n".encode("utf-16-le"))
    assert 'encoding="utf-16"' in files.write("b", "é\n").notes[0]
    files.write("b", "é\r\n", encoding="utf-16")
    assert (files / "b").read_bytes() == b"\xff\xfe" + "é\r\n".encode("utf-16-le")
    assert not files.write("b", "é\r\n", encoding="utf-16").notes
    assert "U+4E2D" in str(files.refused(lambda: files.write("c", "\u4e2d", encoding="latin-1")))
    assert "not an encoding" in str(files.refused(lambda: files.write("c", "x", encoding="klingon")))
    assert not (files / "c").exists()


def become_a_user(files: Files) -> None:
    """From here on the tools run as user 1000."""
    files.folder.parent.chmod(0o755)
    for folder in files.folder.parents:
        if folder.stat().st_mode & 0o001 == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    files.front = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that root's programs may not write")
def test_files_of_folders_that_cannot_be_written_are_written_in_place(files: Files) -> None:
    (files / "closed").mkdir()
    (files / "closed/a").write_text("old and longer\n")
    os.chown(files / "closed/a", 1000, 1000)
    (files / "closed").chmod(0o555)
    become_a_user(files)
    assert "Its folder cannot be written" in files.edit("closed/a", "old", "new").notes[0]
    assert (files / "closed/a").read_text() == "new and longer\n"
    (files / "closed/b").write_text("x")
    assert "no permission" in str(files.refused(lambda: files.write("closed/b", "y")))
    assert "no permission" in str(files.refused(lambda: files.write("closed/c", "y")))


def test_an_undo_is_the_difference_alone() -> None:
    before, after = b"a" * 100_000 + b"old" + b"b" * 100_000, b"a" * 100_000 + b"new and longer" + b"b" * 100_000
    undo = Undo.between(before, after)
    assert (undo.removed, undo.apply(after)) == (b"old", before)
    for one, other in ((b"", b"x"), (b"x", b""), (b"aa", b"aaa"), (b"aba", b"abba"), (b"same", b"same")):
        assert Undo.between(one, other).apply(other) == one
        assert Undo.between(other, one).apply(one) == other


def test_what_is_remembered_of_files_is_bounded() -> None:
    history, place = FileHistory(), Where("a")
    for number in range(MAX_FILES + 1):
        history.see(TASK, Where(str(number)), Fingerprint(1, 1))
    assert history.seen(TASK, Where("0")) is None
    assert history.seen(TASK, Where("1"))
    for number in range(30):
        history.changed(TaskKey("p", str(number)), place, Fingerprint(0, 0), Undo.between(b"x" * MAX_UNDO, b""))
    kept = [number for number in range(30) if history.last_change(TaskKey("p", str(number)), place)]
    assert kept == list(range(30 - 16, 30))
    history.changed(TASK, place, Fingerprint(0, 0), Undo.between(b"x" * (MAX_UNDO + 1), b""))
    assert history.last_change(TASK, place) is None
    for number in range(MAX_FILES + 1):
        history.changed(TASK, Where(str(number)), Fingerprint(0, 0), Undo.between(b"x", b""))
    assert history.last_change(TASK, Where("0")) is None
    assert history.last_change(TASK, Where("1"))
    for number in range(MAX_TASKS):
        history.see(TaskKey("q", str(number)), place, Fingerprint(1, 1))
    assert history.seen(TaskKey("p", "29"), place) is None
    history.forget(TaskKey("q", "5"))
    assert history.seen(TaskKey("q", "5"), place) is None


def other_name(files: Files, way: str) -> str:
    """Gives the file `a` another name, and returns that."""
    if way == "link":
        (files / "b").symlink_to("a")
    elif way == "link of the folder":
        (files / "to").symlink_to(".")
    elif way == "hard link":
        (files / "b").hardlink_to(files / "a")
    else:
        (files / "a").rename(files / "b")
    return "to/a" if way == "link of the folder" else "b"


@pytest.mark.parametrize("way", ["link", "link of the folder", "hard link", "rename"])
def test_a_file_is_known_under_each_of_its_names(files: Files, way: str) -> None:
    (files / "a").write_text("one\n")
    files.read("a")
    files.edit("a", "one", "two")
    name = other_name(files, way)
    # What the task itself did under another name is not a change that it has not seen.
    files.edit(name, "two", "three")
    if way != "rename":
        files.write("a", "four\n")
        assert (files / name).read_text() == "four\n"
        files.edit("a", "four", "three")
    # What others did is, whatever the name.
    (files / name).write_text("theirs\n")
    assert "has changed since this task last" in str(files.refused(lambda: files.write(name, "mine\n")))
    assert (files / name).read_text() == "theirs\n"


@pytest.mark.parametrize("way", ["link", "link of the folder", "hard link", "rename"])
def test_a_change_is_undone_under_another_name(files: Files, way: str) -> None:
    (files / "a").write_text("one\n")
    files.edit("a", "one", "two")
    name = other_name(files, way)
    files.edit(name, undo=True)
    assert (files / name).read_text() == "one\n"
    files.edit(name, undo=True)
    assert (files / name).read_text() == "two\n"


def test_a_new_file_at_the_place_of_a_removed_one_is_judged_by_its_name_alone(files: Files) -> None:
    (files / "a").write_text("one\n")
    files.edit("a", "one", "two")
    # The file system may give its number to the next file, which the task has never seen.
    (files / "a").unlink()
    (files / "c").write_text("theirs\n")
    files.write("c", "mine\n")
    assert (files / "c").read_text() == "mine\n"
    assert "There is no" in str(files.refused(lambda: files.edit("a", undo=True)))


def test_bits_of_a_mode_beyond_the_permissions_are_kept_or_their_loss_is_said(files: Files) -> None:
    for mode in (0o4755, 0o2755, 0o1644):
        (files / "a").write_text("one\n")
        (files / "a").chmod(mode)
        assert files.edit("a", "one", "two").notes == ()
        assert stat.S_IMODE((files / "a").stat().st_mode) == mode
    (files / "a").chmod(0o4755)
    (files / "b").hardlink_to(files / "a")
    assert "hard links" in files.edit("a", "two", "three").notes[0]
    assert stat.S_IMODE((files / "a").stat().st_mode) == 0o4755
    assert files.write("a", "four\n", mode="755").notes[1:] == ()
    assert stat.S_IMODE((files / "a").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_loss_of_a_bit_that_another_owner_set_is_said(files: Files) -> None:
    path = files / "a"
    path.write_text("one\n")
    path.chmod(0o666)
    os.chown(path, 1234, 1234)
    path.chmod(0o6777)
    files.folder.chmod(0o777)
    become_a_user(files)
    notes = files.edit("a", "one", "two").notes
    assert "another user" in notes[0]
    assert "Its set-user-ID and set-group-ID bits are lost" in notes[1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


def test_a_file_that_another_program_goes_on_writing_is_appended_to(files: Files) -> None:
    (files / "log").write_text("begun\n")
    command = files.command

    def logging(*words: str, stdin: bytes | None = None) -> bytes:
        if words[0] == "write":
            with (files / "log").open("a") as out:
                out.write("theirs\n")
        return command(*words, stdin=stdin)

    files.command = logging  # type: ignore[method-assign]
    assert "Appended 5 bytes" in files.write("log", "mine\n", append=True).said
    lines = (files / "log").read_text().split()
    assert (lines.count("begun"), lines.count("mine"), lines.count("theirs")) == (1, 1, TRIES)


def test_a_file_that_a_running_program_has_open_is_written_in_place(files: Files) -> None:
    (files / "log").write_text("begun\n")
    with (files / "log").open("a") as out:
        assert "open for writing" in files.edit("log", "begun", "started").notes[0]
        out.write("more\n")
    assert (files / "log").read_text() == "started\nmore\n"
    with (files / "log").open() as reader:
        assert files.edit("log", "more", "less").notes == ()
        assert reader.read() == "started\nmore\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_that_another_one_is_mounted_on_is_written_in_place(files: Files) -> None:
    (files / "other").write_text("old\n")
    (files / "a").write_text("below\n")
    files.front = ["unshare", "--mount", "sh", "-c", 'mount --bind other a && exec "$@"', "sh"]
    assert files.edit("a", "old", "new").notes == ("It is a mount of its own, so it was written in place.",)
    assert ((files / "other").read_text(), (files / "a").read_text()) == ("new\n", "below\n")
