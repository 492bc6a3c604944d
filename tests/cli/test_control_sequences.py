"""What a command's output can do to a person's terminal."""

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.cli.control_sequences import harmless

#: Seconds for a command with a server of its own, on a busy machine.
PATIENCE = 90.0


@pytest.mark.parametrize(
    "text",
    [
        "plain\ttext\r\nand more\b\b",
        "\x1b[1;31mred\x1b[0m \x1b[38;5;208mx\x1b[38:2::1:2:3mx\x1b[m",
        "\x1b[A\x1b[2B\x1b[10C\x1b[D\x1b[2E\x1b[F\x1b[5G\x1b[H\x1b[3;4H\x1b[3;4f\x1b[7d",
        "\x1b[K\x1b[0K\x1b[1K\x1b[2K\x1b[J\x1b[2J\x1b[3X",
        "\x1b[s\x1b[u\x1b7\x1b8",
        "שלום 👩‍💻 é",
    ],
)
def test_text_colours_moves_and_erasing_pass(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b]52;c;aGVsbG8=\x07",  # the clipboard
        "\x1b]52;c;aGVsbG8=\x1b\\",
        "\x9d52;c;aGVsbG8=\x9c",
        "\x1b]0;title\x07",
        "\x1b]8;;http://example.org\x1b\\",  # a link whose text says something else
        "\x1b[6n",  # the terminal types an answer
        "\x1b[c\x1b[>c\x1b[5n\x1b[21t\x1b[x\x9b6n",
        "\x1bP+q544e\x1b\\",
        "\x1b[?1049h\x1b[?25l\x1b[?1000h\x1b[4h",  # modes
        "\x1b[>4;2m\x1b[?1m\x1b[>1u\x1b[=1u\x1b[?J",  # a private marker makes another command of it
        "\x1b[1;5r\x1b[1;5s",  # margins
        "\x1b[3J",  # what has scrolled out
        "\x1b[5i\x1b[4i",  # a printer
        "\x1b[2 q\x1b[!p\x1b[?6W",
        "\x1bc\x1b#8\x1b(0\x1b%G\x1bD\x1bM\x1b=",
        "\x1b_payload\x1b\\\x1b^payload\x1b\\\x1bXpayload\x1b\\",
        "\x07\x0e\x0f\x0b\x0c\x00\x05\x7f\x85\x9c",
    ],
)
def test_whatever_else_a_terminal_would_do_does_not(sequence: str) -> None:
    assert harmless(f"a{sequence}b") == "ab"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;no end\nnext line", "\nnext line"),
        ("\x1b]0;\x1b[31mred", "\x1b[31mred"),
        ("\x1b", ""),
        ("\x1b[12;", "12;"),
        ("\x1b\x1b]0;x\x07[6n", "[6n"),
        ("\x1b[\x1b]0;x\x076n", "6n"),
        ("\x1b[6\x1b[31mn", "6\x1b[31mn"),
    ],
)
def test_what_is_left_when_a_sequence_goes_makes_no_new_one(text: str, shown: str) -> None:
    assert harmless(text) == shown


ALLOWED = re.compile(r"\x1b(\[[0-9;:]*[A-HJKXdfmsu]|[78])")
PIECES = st.sampled_from([*"\x1b[]\x9b\x9d\x07\\6;?> nmJPx\n"])


@given(st.lists(PIECES, max_size=40).map("".join) | st.text())
def test_no_other_escape_is_ever_left(text: str) -> None:
    shown = harmless(text)
    assert not re.search(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\x1b]", ALLOWED.sub("", shown))
    assert harmless(shown) == shown


def test_a_long_output_takes_time_in_proportion() -> None:
    assert harmless("\x1b]" * 500_000 + "\nend") == "\nend"
    assert harmless("\x1b[" + "1;" * 500_000) == "1;" * 500_000


def run_exec(folder: Path, *options: str, output: int) -> None:
    (folder / "taskcell.toml").write_text('manifests = []\n[engine]\nkind = "local"\n')
    line = r"printf '\033[31mred\033[0m\033]52;c;aGk=\007\033[6n\n'"
    argv = [sys.executable, "-m", "taskcell", "exec", "--config", str(folder / "taskcell.toml"), *options, "--", line]
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, timeout=PATIENCE, check=True)


def on_a_terminal(folder: Path, *options: str) -> bytes:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with open(ours, "rb", buffering=0) as terminal:
            try:
                while part := terminal.read(1 << 12):
                    shown.extend(part)
            except OSError:  # nobody has the other end any more
                return

    reading = threading.Thread(target=read)
    reading.start()
    try:
        run_exec(folder, *options, output=theirs)
    finally:
        os.close(theirs)
        reading.join(PATIENCE)
    return bytes(shown)


RAW = b"\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07\x1b[6n"


def test_on_a_terminal_output_keeps_its_colours_and_can_do_nothing_else(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path) == b"\x1b[31mred\x1b[0m\r\n"


def test_whoever_wants_it_gets_all_of_it_on_a_terminal(tmp_path: Path) -> None:
    assert on_a_terminal(tmp_path, "--raw") == RAW + b"\r\n"


def test_in_a_file_bytes_are_as_they_were_printed(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        run_exec(tmp_path, output=out.fileno())
    assert (tmp_path / "out").read_bytes() == RAW + b"\n"
