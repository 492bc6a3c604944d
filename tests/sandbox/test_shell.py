"""How lines are given to a shell, and what shells report read back: against the real bash and dash of this machine."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskcell.sandbox.shell import PROLOGUE_SUFFIX, Way, may_change_state, parse_report, plan, report_now

BASH, DASH = shutil.which("bash") or "", shutil.which("dash") or ""
#: Seconds for a shell to start and end on a busy machine.
PATIENCE = 90
#: Seconds for what takes milliseconds where the time grows with the text, and minutes where it grows with its square.
SOON = 3.0

names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z").filter(
    lambda name: (
        name.upper() not in {"_", "PWD", "OLDPWD", "SHLVL", "IFS", "UID", "EUID", "PPID", "OPTIND"}
        and not name.startswith(("BASH", "SHELL", "LC_", "LANG", "POSIX"))
    )
)
values = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b""))


def reported(shell: str, env: dict[bytes, bytes], line: str, folder: Path) -> bytes:
    path = folder / "report"
    path.unlink(missing_ok=True)
    script = f"{line}{report_now(str(path))}"
    subprocess.run([shell, "-c", script], env=env, cwd=folder, timeout=PATIENCE, check=True)
    return path.read_bytes()


@pytest.mark.parametrize("shell", [BASH, DASH])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(env=st.dictionaries(names, values, max_size=5))
def test_whatever_is_exported_comes_back_byte_for_byte(shell: str, tmp_path: Path, env: dict[str, bytes]) -> None:
    given_env = {name.encode(): value for name, value in env.items()}
    ended = parse_report(reported(shell, given_env, "", tmp_path))
    assert ended is not None
    found = {name: value.encode("utf-8", "surrogateescape") for name, value in ended.env.items()}
    assert {name: value for name, value in found.items() if name in env} == env
    assert ended.folder == str(tmp_path)


def test_exported_arrays_which_no_program_gets_hide_nothing(tmp_path: Path) -> None:
    line = (
        "declare -ax LIST=(1 'two words' $'new\\nline' 'q\"uote' ')' '=') EMPTY=() UNSET; "
        "declare -Ax MAP=([k]=v ['a b']='c d'); export AFTER='(a b)' WORD='('; declare -ix NUMBER=3; "
        "declare -ux UPPER=abc; "
    )
    ended = parse_report(reported(BASH, {b"BEFORE": b"1"}, line, tmp_path))
    assert ended is not None
    found = {name: value for name, value in ended.env.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}
    assert found == {"BEFORE": "1", "AFTER": "(a b)", "WORD": "(", "NUMBER": "3", "UPPER": "ABC"}


@pytest.mark.parametrize(
    "line",
    [
        "f() { echo 'a b'; cat <<X\nhere\nX\n}; export -f f; ",
        "f() ( exit 3 ); g() { case $1 in a) echo 1;; esac; }; export -f f g; ",
    ],
)
def test_exported_functions_come_back_as_bash_takes_them(tmp_path: Path, line: str) -> None:
    run = plan(line, BASH, {})
    fifo = tmp_path / "7"
    prologue = tmp_path / f"7{PROLOGUE_SUFFIX}"
    prologue.write_text(run.prologue(str(fifo), BASH))
    subprocess.run([BASH, "-c", line], env={"BASH_ENV": str(prologue)}, cwd=tmp_path, timeout=PATIENCE, check=True)
    ended = parse_report(fifo.read_bytes())
    assert ended is not None
    again = subprocess.run(
        [BASH, "-c", "declare -F"], env=dict(ended.env), capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert again.stderr == ""
    assert again.stdout == "".join(f"declare -fx {name}\n" for name in ("f", "g") if f"{name}()" in line)


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"\0taskcell\0",
        b"\0taskcell\0/x\0",
        b"\0taskcell\0relative\0\0\0",
        b"\0taskcell\0/x\0rubbish\0\0",
        b"x" * 100,
    ],
)
def test_what_is_no_whole_report_is_none(report: bytes) -> None:
    assert parse_report(report) is None


def test_the_last_whole_report_counts_whatever_stands_around_it() -> None:
    whole = (
        b"\0taskcell\0/one\nx\n\0declare -x A=\"1\"\nexport B='2''\"'3\ndeclare -rx C=$'\\001\\n'\ndeclare -x D\n\0\0"
    )
    ended = parse_report(b"noise" + whole + b"\0taskcell\0/two\0declare")
    assert ended is not None
    assert (ended.folder, ended.env) == ("/one\nx", {"A": "1", "B": '2"3', "C": "\x01\n"})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_report_is_too_strange_to_be_read(data: bytes) -> None:
    parse_report(b"\0taskcell\0/\0" + data)


@pytest.mark.parametrize(
    "line",
    [
        "cd /tmp",
        "c'd' /tmp",
        'c"d" /',
        "\\cd x",
        "pushd x",
        "A=1",
        "PATH+=:x",
        "export A",
        ". ./env",
        "source env",
        "eval x",
        "x | . y",
        "$c /tmp",
        "`echo cd` /",
        "read A",
        "printf -v A x",
        "for A in b; do :; done",
        "{cd,/tmp}",
        "unset A",
        "(( A = 1 ))",
        "let A++",
        "getopts a A",
        "mapfile A",
        "trap x EXIT",
        "exec ls",
        "command cd /",
        "builtin cd",
        "!cd x",
    ],
)
def test_what_could_change_folder_or_variables_is_taken_to(line: str) -> None:
    assert may_change_state(line)


@pytest.mark.parametrize(
    "line",
    [
        "ls -la",
        "make test",
        "git status | head -5",
        "python3 main.py --abcd x",
        "cat a.txt > b.txt",
        "./run.sh 'a b'",
        "(ls)",
    ],
)
def test_what_cannot_runs_as_it_is(line: str) -> None:
    assert not may_change_state(line)
    run = plan(line, BASH, {})
    assert (run.way, run.argument("/f"), run.prologue("/f", BASH)) == (Way.NONE, line, "")


def test_an_exported_function_may_hide_behind_any_word() -> None:
    assert plan("ls", BASH, {"BASH_FUNC_ls%%": "() {  cd /\n}"}).way is Way.PROLOGUE


def test_a_file_that_bash_reads_first_may_change_what_no_word_of_the_line_does() -> None:
    assert plan("ls", BASH, {"BASH_ENV": "/workspace/env"}).way is Way.PROLOGUE


@pytest.mark.parametrize(
    ("line", "shell", "way"),
    [
        ("cd /", "/bin/bash", Way.PROLOGUE),
        ("cd /; exec make", "/bin/bash", Way.PROLOGUE_EXEC),
        ("cd /; command exec make", "/bin/bash", Way.PROLOGUE_EXEC),
        ("cd /; builtin exec make", "/bin/bash", Way.PROLOGUE_EXEC),
        ("cd /; # exec", "/bin/bash", Way.PROLOGUE),
        ("exec 3>&1; cd /", "/bin/bash", Way.PROLOGUE),
        ("cd /; trap x EXIT", "/bin/bash", Way.PROLOGUE_TRAPS),
        ("cd /", "/bin/sh", Way.INLINE),
        ("cd /; trap x EXIT", "/bin/sh", Way.NONE),
        ("cd /; set -v", "/bin/bash", Way.NONE),
        ("set -o posix; trap -p; cd /", "/bin/bash", Way.NONE),
        ("POSIXLY_CORRECT=1; trap -p; cd /", "/bin/bash", Way.NONE),
        ("trap : EXIT; type trap", "/bin/bash", Way.NONE),
        ("trap : EXIT; declare -F; cd /", "/bin/bash", Way.NONE),
        ("trap : EXIT; set | grep x", "/bin/bash", Way.NONE),
        ("trap : EXIT; set -e; cd /", "/bin/bash", Way.PROLOGUE_TRAPS),
        ("ulimit -Sn 20; cd /", "/bin/bash", Way.NONE),
        ("ulimit -u 1; cd /; ls", "/bin/bash", Way.NONE),
        ("ulimit -t 60; cd /; ls", "/bin/bash", Way.PROLOGUE),
        ("set -x; cd /; grep -v a", "/bin/bash", Way.PROLOGUE),
    ],
)
def test_each_line_has_its_way(line: str, shell: str, way: Way) -> None:
    run = plan(line, shell, {})
    assert run.way is way
    assert bool(run.unreported) is (way is Way.NONE)


def test_the_users_own_bash_env_is_read_too_and_kept(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("echo own\n")
    run = plan("cd /", BASH, {"BASH_ENV": str(own)})
    prologue = tmp_path / f"7{PROLOGUE_SUFFIX}"
    prologue.write_text(run.prologue(str(tmp_path / "7"), BASH))
    done = subprocess.run(
        [BASH, "-c", "echo $BASH_ENV"],
        env={"BASH_ENV": str(prologue)},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == f"own\n{own}\n"


def test_dash_keeps_state_and_shows_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "7"
    line = "cd /; export A=1; set -x; exit 3"
    words = [DASH, "-c", plan(line, DASH, {}).argument(str(fifo))]
    done = subprocess.run(words, env={}, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "+ exit 3\n")
    ended = parse_report(fifo.read_bytes())
    assert ended is not None
    assert (ended.folder, ended.env["A"]) == ("/", "1")


@pytest.mark.parametrize("word", ["set ", "shopt -s ", "trap ", "ulimit n ", "exec ", "export ", "a=1 ", "; ", "set -"])
def test_the_longest_line_is_judged_at_once(word: str) -> None:
    line = word * (120_000 // len(word))
    began = time.thread_time()
    plan(line, BASH, {})
    assert time.thread_time() - began < SOON


@pytest.mark.parametrize("text", [b"x", b"a () \n{ ", b"\n", b"a () \n{ \n}\ndeclare -fx b\n", b"\ndeclare -f"])
def test_a_report_that_a_command_has_made_up_is_read_at_once(text: bytes) -> None:
    began = time.thread_time()
    parse_report(b"\0taskcell\0/\n\0\0" + text * ((1 << 20) // len(text)) + b"\0")
    assert time.thread_time() - began < SOON
