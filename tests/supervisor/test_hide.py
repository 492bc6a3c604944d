"""A last argument that stands in no argument list which others can read."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from supervisor_driver import Client
from taskcell.supervisor import events
from taskcell.supervisor.protocol import FailedStage, SpawnFlag

HIDE = SpawnFlag.HIDE_LAST


def test_the_program_has_its_argument_and_nobody_finds_it(client: Client) -> None:
    client.run(1, "bash", "-c", "pgrep -f 'hid[d]en text'; tr '\\0' ' ' </proc/$$/cmdline; : hidden text", flags=HIDE)
    assert client.output(1) == b"bash -c  "


def test_a_search_for_its_own_text_does_not_end_the_shell(client: Client) -> None:
    end = client.run(1, "bash", "-c", "pkill -f 'no.such.program'; echo on", flags=HIDE)
    assert (client.output(1), end.exit_code) == (b"on\n", 0)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_environment_is_as_it_would_be(client: Client, shell: str) -> None:
    client.run(1, shell, "-c", "env", flags=HIDE, env={b"A": b"1"})
    seen = client.output(1)
    client.run(2, shell, "-c", "env", env={b"A": b"1"})
    assert seen == client.output(2)


def test_a_long_argument_and_no_environment_at_all_work(client: Client) -> None:
    line = "printf %s " + "x" * 100_000
    client.run(1, "/bin/bash", "-c", line, flags=HIDE, env={})
    assert client.output(1) == b"x" * 100_000


def test_a_script_whose_interpreter_has_other_arguments_gets_its_own_as_ever(client: Client, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    script.chmod(0o755)
    client.run(1, str(script), "a", "b c", flags=HIDE)
    assert client.output(1) == b"[a][b c]"


#: Writes three bytes of its last argument, for a kernel that runs 32-bit programs; no C library is needed.
SMALL = """
__asm__(".globl _start\\n_start: mov (%esp), %ecx\\n mov (%esp,%ecx,4), %ecx\\n mov $4, %eax\\n mov $1, %ebx\\n"
        "mov $3, %edx\\n int $0x80\\n mov $1, %eax\\n xor %ebx, %ebx\\n int $0x80");
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only this processor's kernel has smaller programs to run")
def test_a_program_of_another_word_size_gets_its_argument_as_ever(client: Client, tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text(SMALL)
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    client.run(1, str(tmp_path / "p"), "abc", flags=HIDE)
    assert client.output(1) == b"abc"


def test_a_program_that_cannot_be_executed_fails_as_ever(client: Client) -> None:
    client.spawn(1, "/nowhere/program", "x", flags=HIDE)
    failed = client.wait(events.Failed, 1)
    assert failed.stage is FailedStage.EXEC


def test_hundreds_at_once_and_killed_at_once_leave_nothing(client: Client) -> None:
    for number in range(1, 101):
        client.spawn(number, "bash", "-c", "sleep 30", flags=HIDE, timeout_ms=1 + number % 7, grace_ms=0)
    for number in range(1, 101):
        client.wait(events.Gone, number)
    client.run(200, "bash", "-c", "echo works", flags=HIDE)
    assert client.output(200) == b"works\n"
